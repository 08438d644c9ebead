"""The inside of a process that a benchmark measures from outside.

Each pipeline under measurement runs in a process of its own, so that its CPU and memory are its
own. Protocol: it prints one JSON line when it runs, one for each line it reads on standard input
(its counters so far), and a last one after standard input was closed. `processes.Child` is the
other side.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

_PAGE_KIB: Final = os.sysconf("SC_PAGESIZE") / 1024


def say(line: Mapping[str, Any]) -> None:
    """Print one JSON line."""
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stdout.flush()


async def answer(sample: Callable[[], Mapping[str, Any]]) -> None:
    """Print `sample()` and what this process has used, for each line read; until end of input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        say({**used(), **sample()})


def used() -> dict[str, float]:
    """Return CPU seconds and resident memory of this process, and the time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "time_s": time.monotonic(),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_kib": pages * _PAGE_KIB,
    }


def trimmed() -> dict[str, float]:
    """Return `used()` once what the start left behind is given back to the system: else the first
    connections live in its memory and seem to need none.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # glibc
    return used()


def options() -> dict[str, Any]:
    """Return the first argument, which is a JSON object."""
    given: dict[str, Any] = orjson.loads(sys.argv[1])
    return given
