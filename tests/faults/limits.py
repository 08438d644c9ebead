"""Limits and signals of a process that the test started."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def limit_descriptors(pid: int, soft: int, hard: int | None = None) -> None:
    """Set RLIMIT_NOFILE of a running process. hard: `soft` by default."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, soft if hard is None else hard))


@contextmanager
def descriptors(soft: int) -> Iterator[None]:
    """Let processes that are started meanwhile have this limit of descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process (SIGSTOP): its connections stay open and nothing answers."""
    os.kill(pid, signal.SIGSTOP)
    while state_of(pid) != "T":
        time.sleep(0.001)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    """Return the state of a process as a letter: R runs, S sleeps, T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0]


def open_descriptors(pid: int) -> int:
    """Count the descriptors that a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM (RSS)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
