"""The wires: one contract (:mod:`sark_trio.transports.base`), one transport each. Black.

A wire never asks whether it may; whoever calls it has decided.
"""
