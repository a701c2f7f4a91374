"""Bytes arrive as they like; lines come out, and one that is too long costs only itself."""

from sark_trio.machines.lines import LineSplitter, TooLong

splitter = LineSplitter(line_bytes_max=10)
for chunk in (b"first\nsec", b"ond\r\n", b"x" * 40, b"xx\nlast\n"):
    for line in splitter.feed(chunk):
        print("too long" if isinstance(line, TooLong) else line.decode())
print(splitter)
