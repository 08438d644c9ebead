"""The program, with an event loop that hangs at SIGUSR1: `python -m ... SECONDS COMMAND...`.

A signal's handler runs in the thread of the loop, which does nothing else meanwhile. All other
threads go on, those of the group's client too.
"""

from __future__ import annotations

import signal
import sys
import time

from ingestor.cli.main import main

SECONDS = float(sys.argv[1])


def _hang(_number: int, _frame: object) -> None:
    time.sleep(SECONDS)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _hang)
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    sys.exit(main())
