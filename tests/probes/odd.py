"""The faulty server on stdio with a habit beside: ``odd.py HABIT LOG``. Standard library only.

``floods`` writes 64 MiB to stderr before it reads; ``stays`` ignores SIGTERM, and that stdin has
ended; ``babbles`` begins its first answer with 64 MiB without an end of line.
"""

import importlib.util
import os
import signal
import sys

MEBIBYTES = 64
_PLACE = os.path.join(  # noqa: PTH118 - pathlib takes longer to import than all the rest
    os.path.dirname(__file__),  # noqa: PTH120
    *("..", "support", "stdio_servers", "faulty.py"),
)


def flood(descriptor):
    block = b"x" * 65536
    for _ in range(MEBIBYTES * 16):
        view = memoryview(block)
        while view:
            view = view[os.write(descriptor, view) :]


def main():
    habit = sys.argv.pop(1)
    spec = importlib.util.spec_from_file_location("faulty", _PLACE)
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    if habit == "floods":
        flood(2)
    if habit == "stays":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if habit == "babbles":
        call, calls = server.call, []

        def babble(message, *rest):
            calls.append(message)
            if len(calls) == 2:
                flood(1)
                server.write(b"\n")
            call(message, *rest)

        server.call = babble
    server.main()
    while habit == "stays":
        signal.pause()


main()
