"""Runs a server and copies what it is told on stdin into a file: ``tee.py FILE PROGRAM ARG ...``.

Standard library only. It ends when the server does, with its exit status.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path


def main() -> None:
    copy, *argv = sys.argv[1:]
    server = subprocess.Popen(argv, stdin=subprocess.PIPE)
    # A server that dies by itself must not be survived by us, who wait for our client's words.
    threading.Thread(target=lambda: os._exit(server.wait() & 0xFF), daemon=True).start()
    assert server.stdin is not None
    with Path(copy).open("ab", buffering=0) as file:
        while data := os.read(0, 65536):
            file.write(data)
            try:
                server.stdin.write(data)
                server.stdin.flush()
            except BrokenPipeError:
                break
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    main()
