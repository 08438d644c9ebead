"""One client of the emulator: what it subscribed to, and its way out to the socket.

Answers are queued at once; data waits for room, which is what holds playback back. The queue is
bounded by that: a client's next request is read only when there is room.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from ingestor.testbed.emulator.faults import Fault, Faults, malformed
from ingestor.testbed.emulator.venue import Venue

QUEUED_MAX: Final = 256  # frames
QUEUED_BYTES_MAX: Final = 4 << 20
_BEAT_S: Final = 1.0


class Catalog(Protocol):
    """Give the answers of a recording about names."""

    def resolve(self, stream: str) -> tuple[bool, str | None]:
        """Return whether the venue has such a stream, and the recorded one that stands for it."""

    def has_symbol(self, symbol: str) -> bool: ...

    def depth_of(self, stream: str) -> int | None: ...


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


_Item = bytes | _Pause | None  # None: break the connection


class Client:
    """A connection, as its venue's desk sees it (`emulator_venue.VenueConnection`)."""

    def __init__(
        self,
        number: int,
        socket: ServerConnection,
        venue: Venue,
        catalogue: Catalog,
        faults: Faults,
    ) -> None:
        self.name = f"emulator-{number}"
        self.path = socket.request.path if socket.request is not None else "/"
        self.fresh: list[str] = []  # recorded streams subscribed to and not yet looked after
        self.is_closed = False
        self._socket = socket
        self._venue = venue
        self._catalogue = catalogue
        self._faults = faults
        self._recorded: dict[str, str | None] = {}  # by the client's name of a stream
        self._wanted: Counter[str] = Counter()  # by recorded stream: names that it stands for
        self._items: deque[_Item] = deque()
        self._bytes = 0  # in the queue
        self._held: bytes | None = None  # a frame to be sent after its successor
        self._next_number = 0
        self._sent_since_beat = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._room.set()

    # As a desk -----------------------------------------------------------------------------

    @property
    def subscribed(self) -> Collection[str]:
        return self._recorded.keys()

    @property
    def recorded(self) -> set[str]:
        """The recorded streams that this client gets."""
        return {stream for stream, names in self._wanted.items() if names}

    def subscribe(self, stream: str) -> bool:
        exists, recorded = self._catalogue.resolve(stream)
        if exists and stream not in self._recorded:
            self._recorded[stream] = recorded
            if recorded is not None:
                self._wanted[recorded] += 1
                self.fresh.append(recorded)
        return exists

    def offers(self, stream: str) -> bool:
        return self._catalogue.resolve(stream)[0]

    def depth_of(self, stream: str) -> int | None:
        return self._catalogue.depth_of(stream)

    def unsubscribe(self, stream: str) -> bool:
        if stream not in self._recorded:
            return False
        recorded = self._recorded.pop(stream)
        if recorded is not None:
            self._wanted[recorded] -= 1
        return True

    def has_symbol(self, symbol: str) -> bool:
        return self._catalogue.has_symbol(symbol)

    def wants(self, streams: Collection[str]) -> str | None:
        """Return the first of these recorded streams that the client is subscribed to."""
        return next((stream for stream in streams if self._wanted[stream]), None)

    # The way out ---------------------------------------------------------------------------

    def push(self, payload: bytes) -> None:
        """Queue a frame now, with the connection's number where the venue has one."""
        self._put(self._numbered(payload))

    async def room(self) -> None:
        """Wait until data may be queued, or the connection is gone."""
        await self._room.wait()

    def deliver(self, payload: bytes, stream: str, fault: Fault | None) -> None:
        """Queue a recorded frame, or do what its fault says.

        Args:
            payload: The frame's bytes.
            stream: The stream's name.
            fault: What goes wrong with it, if anything.
        """
        frame = self._numbered(self._venue.dress(payload, stream, self))
        held, self._held = self._held, None
        match fault:
            case None:
                self._put(frame)
            case Fault.DROP:
                pass
            case Fault.DUPLICATE:
                self._put(frame)
                self._put(frame)
            case Fault.REORDER:
                self._held = frame
            case Fault.DELAY | Fault.STALL:
                seconds = self._faults.delay_s if fault is Fault.DELAY else self._faults.stall_s
                self._put(_Pause(seconds))
                self._put(frame)
            case Fault.DISCONNECT:
                self._put(None)
                self.is_closed = True
            case Fault.MALFORMED:
                self._put(malformed(frame))
        if held is not None:
            self._put(held)

    async def flush(self) -> None:
        """Send what is held back, and wait until everything queued is with the socket."""
        if self._held is not None:
            held, self._held = self._held, None
            self._put(held)
        await self._idle.wait()

    async def send_all(self) -> None:
        """Send what is queued, until the connection ends."""
        try:
            while True:
                while not self._items:
                    self._idle.set()
                    self._wake.clear()
                    await self._wake.wait()
                item = self._items.popleft()
                if isinstance(item, bytes):
                    self._bytes -= len(item)
                self._look_for_room()
                if isinstance(item, _Pause):
                    await asyncio.sleep(item.seconds)
                elif item is None:
                    self._socket.transport.abort()
                    return
                else:
                    self._sent_since_beat = True
                    await self._socket.send(item, text=_is_text(item))
        except ConnectionClosed:
            pass
        finally:
            self.close()

    async def beat(self) -> None:
        """Send the venue's heartbeat where nothing else was sent for a second."""
        while True:
            await asyncio.sleep(_BEAT_S)
            frame = None if self._sent_since_beat else self._venue.heartbeat(self)
            if frame is not None:
                self.push(frame)
            self._sent_since_beat = False

    def abort(self) -> None:
        """Drop the connection, whatever its client still has to say."""
        self._socket.transport.abort()

    async def hang_up(self) -> None:
        """Close the connection as a venue does that goes away."""
        await self._socket.close(CloseCode.GOING_AWAY)

    def close(self) -> None:
        """Take nothing more, and let go who waits for room."""
        self.is_closed = True
        self._items.clear()
        self._held = None
        self._room.set()
        self._idle.set()

    def _put(self, item: _Item) -> None:
        if self.is_closed:
            return
        self._items.append(item)
        if isinstance(item, bytes):
            self._bytes += len(item)
        self._idle.clear()
        self._wake.set()
        self._look_for_room()

    def _look_for_room(self) -> None:
        if len(self._items) < QUEUED_MAX and self._bytes < QUEUED_BYTES_MAX:
            self._room.set()
        else:
            self._room.clear()

    def _numbered(self, payload: bytes) -> bytes:
        if self._venue.number is None:
            return payload
        match = self._venue.number.search(payload)
        if match is None:
            return payload
        number, self._next_number = self._next_number, self._next_number + 1
        if int(match[1]) == number:
            return payload
        return b"%b%d%b" % (payload[: match.start(1)], number, payload[match.end(1) :])


def _is_text(payload: bytes) -> bool:
    """Return True if a recorded frame came as text: compressed ones and protobuf are not UTF-8."""
    if payload.isascii():
        return True
    try:
        str(payload, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
