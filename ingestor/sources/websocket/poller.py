"""Which of many sockets have something to read, in portions that leave the loop time for the rest.

uvloop's own transports are read by libuv, which hands over all sockets that are ready, up to 48
times 1,024 of them, before it runs one timer or task: with thousands of busy connections nothing
is flushed or sent meanwhile (docs/adr/0018). Here all sockets are in an epoll set of our own, and
the loop watches that set as if it were one socket.

The set is edge-triggered: a reader is called once for what arrived, and asks for `again` when it
did not read all of it.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from ingestor.telemetry.bulkheads import bulkheads

PORTION: Final = 256  # sockets that are read before the loop has its turn: two milliseconds or so
_DATA: Final = select.EPOLLIN
_READABLE: Final = _DATA | select.EPOLLRDHUP | select.EPOLLET

ReadComplete = Callable[[], None]


class Reader(Protocol):
    """Read a socket when the poller says that it is ready."""

    def readable(self, descriptor: int) -> ReadComplete | None:
        """Read once.

        Return what is to be called when the sockets that are ready with this one, and return the
        same, are read too; None when nothing is.
        """

    def failed(self, failure: Exception) -> None:
        """`readable` raised: report it and end the connection."""


class Readiness:
    """The sockets of one loop that are read. Made by `of`; gone with the last socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Readiness:
        """Return the loop's set."""
        found = _SETS.get(loop)
        if found is None:
            found = _SETS[loop] = cls(loop)
        return found

    def add(self, descriptor: int, reader: Reader) -> None:
        """Let `reader` read when the socket has something to read, or ended."""
        self._readers[descriptor] = reader
        self._epoll.register(descriptor, _READABLE)

    def again(self, descriptor: int) -> None:
        """Let it be read again if there still is something to read."""
        self._epoll.modify(descriptor, _READABLE)

    def remove(self, descriptor: int) -> None:
        """Let this socket be read no more. Before the socket is closed."""
        if self._readers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
        if not self._readers:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            with suppress(KeyError):
                del _SETS[self._loop]

    def _ready(self) -> None:
        readers = self._readers
        on_read_complete: ReadComplete | None = None
        for descriptor, events in self._epoll.poll(0, PORTION):
            reader = readers.get(descriptor)
            if reader is None:  # removed by one before it
                continue
            try:
                following = reader.readable(descriptor)
            except Exception as failure:  # noqa: BLE001  # the others' edges would be lost
                reader.failed(failure)
            else:
                if following is not on_read_complete:  # hardly ever: many have one owner
                    ended, on_read_complete = on_read_complete, following
                    _call(ended)
            if events != _DATA and descriptor in readers:
                self.again(descriptor)  # the end comes after what was read
        _call(on_read_complete)


def _call(on_read_complete: ReadComplete | None) -> None:
    """End the burst of one owner. What it raises is no fault of the sockets that were read."""
    if on_read_complete is not None:
        try:
            on_read_complete()
        except Exception as failure:  # noqa: BLE001  # the boundary
            bulkheads.bug("connection", failure, callback="on_read_complete")


_SETS: WeakKeyDictionary[asyncio.AbstractEventLoop, Readiness] = WeakKeyDictionary()
