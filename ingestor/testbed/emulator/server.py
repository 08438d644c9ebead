"""Recordings played as the exchanges themselves, over real websockets, to any client.

A client connects, subscribes and asks for books and instrument lists as the venue documents it; it
gets the recorded data frames verbatim and in order, those of its streams only. Answers, pongs and
heartbeats of the connection are made for it, recorded ones are not replayed. REST is answered on
the same port.

What is not as it was recorded, and why:
- A subscription to another depth, speed or sort of trades than was recorded is refused as the venue
  refuses. With `stands_in` it gets the recorded stream of its symbol and kind.
- Where a venue numbers the messages of a connection, a client that subscribes to less, or hears
  its answers at other places than the recorder did, gets its own contiguous numbers; nothing else
  in a frame is touched. Who asks for everything gets the recorded numbers once the answers are
  over.
- Where a venue wraps frames at one address and not at another: wrapped or unwrapped as wanted.
- Who subscribes to a book while it is being played first gets a snapshot made of the book at that
  position, where the venue sends one.
- A venue without a module in `venues` is played verbatim: all frames, answers among them, to each
  client from the moment it connects.
- A silent stream is silent: a symbol that the recording lists but has no frames of is accepted.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from decimal import InvalidOperation
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Final, Literal, Self

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ingestor.testbed.emulator.client import Client
from ingestor.testbed.emulator.faults import Fault, Faults
from ingestor.testbed.emulator.playback import Frame, Recording, choose, survey
from ingestor.testbed.emulator.rest import RestDesk, Snapshots
from ingestor.testbed.emulator.venue import Book

StartWhen = Literal["first", "all", "manual"] | int
AtEnd = Literal["keep", "close"]

MAX_SPEED: Final = math.inf
_CHUNK: Final = 128  # frames read ahead
_NO_FAULTS: Final = Faults()
PARTING_S: Final = 0.2  # that clients have to answer when the emulator ends
CLOSE_TIMEOUT_S: Final = 2.0  # how long the closing handshake may take before TCP is dropped


@dataclass(slots=True)
class EmulatorStatistics:
    """frames_played: data frames of the recording that playback has passed. frames_sent: by
    recorded stream, over all clients, as if without faults. faults: deliveries that one befell.
    """

    frames_played: int = 0
    frames_sent: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    clients: int = 0
    clients_open: int = 0
    subscribed: int = 0
    refused: int = 0
    rest_requests: Counter[str] = field(default_factory=Counter)


class _Connection(ServerConnection):
    """The library's connection, ended also where a client closes it and leaves TCP open."""

    _end: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._end is None and self.protocol.close_expected():
            self._end = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)


class VenueEmulator:
    """One venue and market of some recordings, served on one port while the context is open."""

    def __init__(
        self,
        paths: Iterable[Path] | Recording,
        venue: str | None = None,
        market: str | None = None,
        *,
        speed: float = 1.0,
        faults: Faults | None = None,
        start_when: StartWhen = "all",
        start_after_s: float | None = 1.0,
        at_end: AtEnd = "keep",
        snapshots: Snapshots = "position",
        stands_in: bool = True,
        tls: SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """paths: files or folders, or what `survey` found in them.

        venue, market: needed where the recordings hold several. speed: times the recorded pace,
        MAX_SPEED = as fast as the sockets take it. start_when: playback begins with the first
        subscription, when all recorded streams, or so many, are subscribed to, or by `start()`.
        start_after_s: and at the latest so long after the first subscription. at_end: what becomes
        of the connections. snapshots: whether books by REST are those of the position, or always
        the recorded ones. stands_in: whether a recorded stream may stand for one of another name.
        tls: serves wss and https. port: 0 = any.
        """
        self.finished = asyncio.Event()
        self.statistics = EmulatorStatistics()
        self._paths = paths
        self._wanted = (venue, market)
        self._speed = speed
        self._faults = faults or _NO_FAULTS
        self._start_when = start_when
        self._start_after_s = start_after_s
        self._at_end = at_end
        self._snapshots = snapshots
        self._stands_in = stands_in
        self._tls = tls
        self._address = (host, port)
        self._clients: list[Client] = []
        self._books: dict[str, Book] = {}
        self._started = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._stack = AsyncExitStack()
        self._server: Server
        self._recording: Recording
        self._rest: RestDesk

    @property
    def ws_url(self) -> str:
        """The origin in place of the venue's websocket host; paths are the venue's."""
        return f"{'wss' if self._tls else 'ws'}://{self._origin}"

    @property
    def rest_url(self) -> str:
        """The origin in place of the venue's REST host."""
        return f"{'https' if self._tls else 'http'}://{self._origin}"

    @property
    def _origin(self) -> str:
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def recording(self) -> Recording:
        """Return what is played: venue, market, streams."""
        return self._recording

    async def __aenter__(self) -> Self:
        """Raises ConfigError when there is nothing to play, OSError when the port is taken."""
        if isinstance(self._paths, Recording):
            self._recording = self._paths
        else:
            found = await _surveyed(self._paths)
            self._recording = choose(found, *self._wanted)
        self._rest = RestDesk(self._recording, self._snapshots, self._books.values)
        host, port = self._address
        self._server = await serve_websockets(
            self._serve,
            host,
            port,
            ssl=self._tls,
            process_request=self._request,
            compression=None,
            close_timeout=CLOSE_TIMEOUT_S,
            create_connection=_Connection,
        )
        self._stack.push_async_callback(self._stop_server)
        player = asyncio.create_task(self._play())
        self._stack.push_async_callback(_stop, player)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._stack.aclose()

    async def _stop_server(self) -> None:
        """Say good-bye to every client, and wait for no answer."""
        partings = [asyncio.create_task(client.hang_up()) for client in self._clients]
        if partings:
            await asyncio.wait(partings, timeout=PARTING_S)
        for client in list(self._clients):
            client.abort()
        self._server.close()
        await self._server.wait_closed()
        await asyncio.gather(*partings, return_exceptions=True)

    def start(self) -> None:
        """Begin to play, whoever is there."""
        self._started.set()

    @property
    def _streams_to_start(self) -> int:
        match self._start_when:
            case int(number):
                return number
            case "first":
                return 1
        return len(self._recording.streams)

    # Names ---------------------------------------------------------------------------------

    def resolve(self, stream: str) -> tuple[bool, str | None]:
        """See `emulator_client.Catalog`."""
        venue, streams = self._recording.exchange, self._recording.streams
        symbol, kind = venue.channel(stream)
        if stream in streams:
            return True, stream
        standing_in = next(
            (stream for stream in streams if venue.channel(stream) == (symbol, kind)), None
        )
        exists = not venue.refuses_unknown or stream in venue.always or self.has_symbol(symbol)
        if standing_in is not None and not self._stands_in:
            exists, standing_in = False, None
        if not exists:
            self.statistics.refused += 1
        return exists, standing_in

    def depth_of(self, stream: str) -> int | None:
        return None if self._stands_in else self._recording.depths.get(stream)

    def has_symbol(self, symbol: str) -> bool:
        return symbol in self._recording.symbols or self._rest.lists(symbol)

    # Clients -------------------------------------------------------------------------------

    def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer what is no websocket handshake."""
        if "Upgrade" in request.headers:
            return None
        self.statistics.rest_requests[request.path.partition("?")[0]] += 1
        status, body = self._rest.answer(request.path)
        headers = Headers(
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
        )
        return Response(status, HTTPStatus(status).phrase, headers, body)

    async def _serve(self, socket: ServerConnection) -> None:
        statistics = self.statistics
        venue = self._recording.exchange
        client = Client(statistics.clients, socket, venue, self, self._faults)
        statistics.clients += 1
        statistics.clients_open += 1
        self._clients.append(client)
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(client.send_all()), tasks.create_task(client.beat())]
                await self._listen(socket, client)
                for helper in helpers:
                    helper.cancel()
        finally:
            client.close()
            self._clients.remove(client)
            statistics.clients_open -= 1

    async def _listen(self, socket: ServerConnection, client: Client) -> None:
        venue = self._recording.exchange
        for answer in venue.opening(client, client.path):
            client.push(answer)
        self._look_after(client)
        try:
            async for message in socket:
                text = message.encode() if isinstance(message, str) else message
                for answer in venue.receive(text, client):
                    client.push(answer)
                self._look_after(client)
                await client.room()
        except ConnectionClosed:
            pass

    def _look_after(self, client: Client) -> None:
        """Give who subscribed late the book as it is now; begin to play when it is time."""
        for stream in client.fresh:
            self.statistics.subscribed += 1
            book = self._books.get(stream)
            image = None if book is None else self._recording.exchange.image(stream, book)
            if image is not None:
                client.push(image)
        client.fresh.clear()
        if self._started.is_set() or self._start_when == "manual":
            return
        streams = set().union(*(client.recorded for client in self._clients))
        if len(streams) >= self._streams_to_start:
            self.start()
        elif streams and self._start_after_s is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._start_after_s, self.start)

    # Playback ------------------------------------------------------------------------------

    async def _play(self) -> None:
        try:
            await self._started.wait()
            pace = _Pace(self._speed)
            frames = self._recording.frames()
            while chunk := await asyncio.to_thread(lambda: list(islice(frames, _CHUNK))):
                for frame in chunk:
                    await pace.until(frame.ts_ns)
                    await self._pass(frame)
            for client in list(self._clients):
                await client.flush()
        finally:
            self.finished.set()
        if self._at_end == "close":
            for client in list(self._clients):
                await client.hang_up()

    async def _pass(self, frame: Frame) -> None:
        """Move the position past a frame, and give it to whom it is for."""
        statistics = self.statistics
        for change in frame.changes:
            with suppress(InvalidOperation):  # recorded nonsense: played, but in no book
                if self._recording.exchange.snapshots_by_rest:
                    self._rest.played(change)
                else:
                    self._books.setdefault(change.stream, Book()).apply(change)
        self._rest.traded(frame.trades)
        number = statistics.frames_played
        statistics.frames_played += 1
        fault = self._faults.decide(number, frame.streams)
        concerned = [(client, client.wants(frame.streams)) for client in self._clients]
        for client, stream in concerned:
            if stream is None:
                continue
            await client.room()
            if client.is_closed:
                continue
            client.deliver(frame.payload, stream, fault)
            statistics.frames_sent[stream] += 1
            if fault is not None:
                statistics.faults[fault] += 1


class _Pace:
    """Keeps the recorded gaps, divided by the speed."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first: tuple[int, float] | None = None

    async def until(self, ts_ns: int) -> None:
        """Sleep until a recorded time has come."""
        if math.isinf(self._speed):
            return
        now_s = asyncio.get_running_loop().time()
        if self._first is None:
            self._first = (ts_ns, now_s)
        first_ns, started_s = self._first
        wait_s = started_s + (ts_ns - first_ns) / 1e9 / self._speed - now_s
        if wait_s > 0:
            await asyncio.sleep(wait_s)


async def _stop(task: asyncio.Task[None]) -> None:
    """Cancel a task; raise what it failed of."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _surveyed(paths: Iterable[Path]) -> list[Recording]:
    """Read recordings in a thread, which ends soon after this task is cancelled."""
    ended = threading.Event()
    try:
        return await asyncio.to_thread(survey, list(paths), ended.is_set)
    finally:
        ended.set()


async def serve(
    paths: Iterable[Path],
    *,
    venue: str | None = None,
    market: str | None = None,
    speed: float = 1.0,
    faults: Faults | None = None,
    start_when: StartWhen = "all",
    start_after_s: float | None = 1.0,
    at_end: AtEnd = "keep",
    host: str = "127.0.0.1",
    port: int = 8765,
    stands_in: bool = False,
    tls: SSLContext | None = None,
    tell: Callable[[VenueEmulator], None] = lambda emulator: None,
) -> None:
    """Play every venue and market found in some recordings, until cancelled.

    Args:
        paths: The recordings.
        venue: Play this venue alone.
        market: Play this market alone.
        speed: 1.0 as recorded.
        faults: What goes wrong.
        start_when: Which clients must have subscribed before it starts.
        start_after_s: Start after so many seconds all the same; None for never.
        at_end: What happens at the recordings' end.
        host: Address to listen on.
        port: Port of the first venue and market, the others follow; 0 = any.
        stands_in: Fill streams that are not recorded.
        tls: Serve wss and https.
        tell: Hears of each emulator that is up.

    Raises:
        ConfigError: There is nothing to play.
        OSError: A port is taken.
    """
    found = await _surveyed(paths)
    if venue is not None or market is not None:
        found = [choose(found, venue, market)]
    async with AsyncExitStack() as stack:
        for place, recording in enumerate(found):
            emulator = VenueEmulator(
                recording,
                speed=speed,
                faults=faults,
                start_when=start_when,
                start_after_s=start_after_s,
                at_end=at_end,
                stands_in=stands_in,
                tls=tls,
                host=host,
                port=port + place if port else 0,
            )
            tell(await stack.enter_async_context(emulator))
        await asyncio.Event().wait()
