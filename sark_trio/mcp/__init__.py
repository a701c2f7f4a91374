"""The protocol's words: messages, versions, headers, eras, sessions, tools.

A white room. Nothing here does I/O, knows the time, or decides whether a call may happen.
"""
