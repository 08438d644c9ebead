"""The simulated venue's websocket server: accepts, answers, sends what is due.

Clients that don't read are waited for: a stream stands still while one of its clients' buffers is
full, so that nothing is lost on the way.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import asdict
from time import process_time, time, time_ns
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

import orjson
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from ingestor.testbed.simulated.dialects import OWN, Dialect, make_book
from ingestor.testbed.simulated.market import Encoded
from ingestor.testbed.simulated.state import (
    Faults,
    SimulatorOptions,
    SimulatorStatistics,
    Stream,
    Symbol,
    fields_of,
)

_WRITE_BYTES_MAX: Final = 1 << 20  # in a connection's buffer; its streams then wait
_BURST: Final = 32  # frames of a stream that are written at once when there is no rate
_AT_ONCE: Final = 32  # frames with a rate that are written in a turn: they bear one time of sending
_HEARTBEAT_PARTS: Final = 50  # of the interval: not to everybody at once
_STALLED_S: Final = 0.01  # how often a stalled server without a rate looks whether it still is
_CLOSE_TIMEOUT_S: Final = 2.0  # how long a client that closed may keep TCP open
_CREDIT_MAX_S: Final = 0.25  # what was missed while the loop was busy is made up for, up to this

_quiet = logging.getLogger(f"{__name__}.library")
_quiet.setLevel(logging.CRITICAL + 1)
_QUIET: Final = logging.LoggerAdapter(_quiet, {})


class Client(WSListener):
    """One connection that was accepted."""

    __slots__ = ("blocked", "raw", "server", "streams", "transport")

    def __init__(self, server: Simulator) -> None:
        self.server = server
        self.streams: dict[str, Stream] = {}
        self.blocked = False
        self.transport: WSTransport | None = None
        self.raw: asyncio.Transport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.raw = transport.underlying_transport
        self.raw.set_write_buffer_limits(high=_WRITE_BYTES_MAX)
        self.server.clients.add(self)
        self.server.statistics.accepted += 1

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self.server.handle_message(self, frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            # a client that doesn't read what is still to be written
            asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, transport.disconnect, False)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.server.clients.discard(self)
        for stream in list(self.streams.values()):
            self.server.leave(self, stream)

    def pause_writing(self) -> None:
        if not self.blocked:
            self.blocked = True
            for stream in self.streams.values():
                stream.blocked += 1

    def resume_writing(self) -> None:
        if self.blocked:
            self.blocked = False
            for stream in self.streams.values():
                stream.blocked -= 1
            self.server.unblocked.set()

    def send(self, payload: bytes) -> None:
        if self.transport is not None:
            self.transport.send(WSMsgType.TEXT, payload)


class Simulator:
    """The venue. Use it as an asynchronous context manager; `addresses` are known inside."""

    def __init__(
        self, options: SimulatorOptions | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.options = options or SimulatorOptions()
        self.faults = Faults()
        self.statistics = SimulatorStatistics()
        self.addresses: list[str] = []  # ws://host:port
        self.rest: str = ""  # http://host:port
        self.clients: set[Client] = set()
        self.unblocked = asyncio.Event()
        self._ssl_context = ssl_context
        self._book = make_book(self.options.dialect, self.options.shape, self.options.seed)
        dialect = self._book.dialect
        names = [dialect.symbol(number) for number in range(self.options.symbols)]
        self._symbols = {
            name: Symbol(name.encode(), name.lower().encode(), number % self.options.shape.walks)
            for number, name in enumerate(names)
        }
        self._streams: dict[str, Stream] = {}
        self._heard: dict[Stream, None] = {}  # streams that somebody hears
        self._turn: list[Stream] | None = None  # the same, in the order of sending
        self._next = 0
        self._servers: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._started_s = time()

    @property
    def symbols(self) -> list[str]:
        return list(self._symbols)

    @property
    def dialect(self) -> Dialect:
        return self._book.dialect

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        for host in self.options.hosts:
            for port in self.options.ports:
                server = await ws_create_server(
                    self._accept,
                    host,
                    port,
                    logger_name=_QUIET,
                    max_frame_size=1 << 20,
                    read_buffer_init_size=2048,
                    use_aiofastnet=False,
                    ssl=self._ssl_context,
                    backlog=4096,
                )
                self._servers.append(server)
                actual = server.sockets[0].getsockname()[1]
                self.addresses.append(f"{self._scheme('ws')}://{host}:{actual}")
        self.rest = self.addresses[0].replace("ws", "http", 1)
        loop = asyncio.get_running_loop()
        send = self._send_at_rate if self.options.rate_per_s else self._send_all
        self._tasks = [loop.create_task(send()), loop.create_task(self._heartbeats())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            server.close()
        self.cut()
        while self.clients:  # noqa: ASYNC110  # a few turns of the loop
            await asyncio.sleep(0.001)
        for server in self._servers:
            await server.wait_closed()

    def _scheme(self, plain: str) -> str:
        return plain if self._ssl_context is None else f"{plain}s"

    # ------------------------------------------------------------------ what clients ask

    def _accept(
        self, request: WSUpgradeRequest
    ) -> WSListener | WSUpgradeResponseWithListener | None:
        parts = urlsplit(request.path.decode())
        if "upgrade" not in request.headers.get("connection", "").lower():
            body = self._answer(parts.path, parse_qs(parts.query))
            if body is None:
                return None
            headers = {"Content-Type": "application/json"}
            response = WSUpgradeResponse.create_ok_response(body, headers)
            return WSUpgradeResponseWithListener(response, None)
        faults = self.faults
        if faults.refuse:
            faults.refuse -= 1
            self.statistics.refused += 1
            wait = (
                {} if faults.retry_after_s is None else {"Retry-After": f"{faults.retry_after_s}"}
            )
            refusal = WSUpgradeResponse.create_error_response(faults.status, b"", wait)
            return WSUpgradeResponseWithListener(refusal, None)
        return Client(self)

    def _answer(self, path: str, query: dict[str, list[str]]) -> bytes | None:
        listing, body = self._book.dialect.instruments(self.symbols[: self.faults.listed or None])
        if path == listing:
            return body
        if path.startswith("/control/"):
            return self._control(path.removeprefix("/control/"), query)
        symbol = self._symbols.get(query.get("symbol", [""])[0])
        if symbol is not None:
            state = self._book.walks[symbol.price_walk].states[symbol.place]
            depth = self._book.dialect.depth(state)
            if depth is not None and depth[0] == path:
                text = Encoded(depth[1], len(symbol.name), framed=False)
                return text.encode(fields_of(symbol, symbol.number))
        return None

    def _control(self, name: str, query: dict[str, list[str]]) -> bytes | None:
        values = {key: float(value[0]) for key, value in query.items()}
        match name:
            case "statistics":
                return orjson.dumps(asdict(self.measured()))
            case "cut":
                self.cut(values.get("within_s", 0.0))
            case "stall":
                self.stall(values.get("for_s", 10.0))
            case "burst":
                self.faults.rate_factor = values.get("factor", 5.0)
            case "list":
                self.faults.listed = int(values.get("count", 0))
            case "malformed" | "gaps" | "duplicates" | "refuse":
                setattr(self.faults, name, int(values.get("count", 1)))
                self.faults.status = int(values.get("status", 503))
                wait = values.get("retry_after_s")
                self.faults.retry_after_s = None if wait is None else int(wait)
            case _:
                return None
        return b"{}"

    def handle_message(self, client: Client, payload: bytes) -> None:
        """A client's message."""
        if self.faults.deaf:
            return
        dialect = self._book.dialect
        try:
            message = orjson.loads(payload)
            request = dialect.request(message)
        except ValueError:
            request = None
        if request is None:
            return
        subscribe, names = request
        good: list[str] = []
        bad: list[str] = []
        joined: list[Stream] = []
        for name in names:
            stream = self._find(name)
            (bad if stream is None else good).append(name)
            if stream is not None and subscribe:
                joined.append(stream)
            elif name in client.streams:
                self.leave(client, client.streams[name])
        for answer in dialect.answer(message, good, bad):
            client.send(answer)
        for stream in joined:
            self._join(client, stream)

    def _find(self, name: str) -> Stream | None:
        found = self._streams.get(name)
        if found is None:
            split = self._book.dialect.split(name)
            symbol = self._symbols.get(split[1]) if split is not None else None
            if split is None or symbol is None:
                return None
            events = self._book.events(symbol.price_walk, split[0])
            found = self._streams[name] = Stream(name, split[0], symbol, events)
        return None if found.symbol.name.decode() in self.faults.bad_symbols else found

    def _join(self, client: Client, stream: Stream) -> None:
        symbol = stream.symbol
        if stream.kind == "book":
            snapshot = self._book.snapshot(symbol.price_walk, symbol.place)
            if snapshot is not None and client.raw is not None:
                client.raw.write(snapshot.encode(fields_of(symbol, symbol.number)))
        if stream.name in client.streams:
            return
        client.streams[stream.name] = stream
        if not stream.clients:
            self._heard[stream] = None
            self._turn = None
            symbol.book_streams += stream.kind == "book"
        stream.clients.append(client)
        stream.blocked += client.blocked
        self.unblocked.set()

    def leave(self, client: Client, stream: Stream) -> None:
        """A client hears a stream no longer."""
        if client.streams.pop(stream.name, None) is None:
            return
        stream.clients.remove(client)
        stream.blocked -= client.blocked
        if not stream.clients:
            stream.symbol.book_streams -= stream.kind == "book"
            del self._heard[stream]
            self._turn = None

    def _in_turn(self) -> list[Stream]:
        if self._turn is None:
            halted = self.faults.halted
            self._turn = [
                client for client in self._heard if client.symbol.name.decode() not in halted
            ]
        return self._turn

    # ------------------------------------------------------------------ sending

    async def _send_at_rate(self) -> None:
        options = self.options
        credit, before_s = 0.0, time()
        while True:
            await asyncio.sleep(options.tick_s)
            now_s = time()
            rate = options.rate_per_s * self.faults.rate_factor * len(self._heard)
            if now_s < self.faults.stalled_until_s:
                credit, before_s = 0.0, now_s
                continue
            credit = min(credit + (now_s - before_s) * rate, rate * _CREDIT_MAX_S + 1.0)
            before_s = now_s
            due = int(credit)
            credit -= due
            while due > _AT_ONCE:
                self._send(_AT_ONCE)
                due -= _AT_ONCE
                await asyncio.sleep(0)  # the loop writes to the sockets at the end of each turn
            self._send(due)

    def _send(self, count: int) -> None:
        """Send the next frame of so many streams, in turn, all with the time of now."""
        turn = self._in_turn()
        if not turn:
            return
        now_ns = time_ns()
        time_text, millis = b"%d" % now_ns, b"%d" % (now_ns // 1_000_000)
        place = self._next
        spoils = self.faults.spoils
        sent = size = 0
        for _ in range(count):
            place = place + 1 if place + 1 < len(turn) else 0
            stream = turn[place]
            if stream.blocked:
                continue
            frame = stream.advance(time_text, millis)
            if spoils:
                frame = self._spoil(stream, frame)
            clients = stream.clients
            for client in clients:
                client.raw.write(frame)  # type: ignore[union-attr]  # open: it subscribed
            sent += len(clients)
            size += len(frame) * len(clients)
        self._next = place
        self.statistics.frames += sent
        self.statistics.bytes += size

    async def _send_all(self) -> None:
        """No rate: keep every connection's buffer full."""
        while True:
            if time() < self.faults.stalled_until_s:
                await asyncio.sleep(_STALLED_S)
                continue
            wrote = False
            for stream in self._in_turn():
                clients = stream.clients
                if stream.blocked or not clients:
                    continue
                now_ns = time_ns()
                time_text, millis = b"%d" % now_ns, b"%d" % (now_ns // 1_000_000)
                frames = b"".join([stream.advance(time_text, millis) for _ in range(_BURST)])
                for client in clients:
                    client.raw.write(frames)  # type: ignore[union-attr]  # open: it subscribed
                self.statistics.frames += _BURST * len(clients)
                self.statistics.bytes += len(frames) * len(clients)
                wrote = True
            if wrote:
                await asyncio.sleep(0)
            else:
                self.unblocked.clear()
                await self.unblocked.wait()

    def _spoil(self, stream: Stream, frame: bytes) -> bytes:
        faults = self.faults
        if faults.malformed:
            faults.malformed -= 1
            return b'\x81\x05{"ch"'
        if faults.gaps and stream.kind == "book":
            faults.gaps -= 1
            return b""
        if faults.duplicates:
            faults.duplicates -= 1
            return frame + frame
        return frame

    async def _heartbeats(self) -> None:
        if self.options.dialect != OWN:
            return
        while True:
            clients = list(self.clients)
            for part in range(_HEARTBEAT_PARTS):
                await asyncio.sleep(self.options.heartbeat_s / _HEARTBEAT_PARTS)
                for client in clients[part::_HEARTBEAT_PARTS]:
                    if client in self.clients:
                        client.send(b'{"op":"heartbeat"}')

    # ------------------------------------------------------------------ faults

    def cut(self, within_s: float = 0.0) -> None:
        """Drop every connection, spread over so many seconds."""
        loop = asyncio.get_running_loop()
        clients = list(self.clients)
        for number, client in enumerate(clients):
            if client.transport is None:
                continue
            if within_s:
                loop.call_later(
                    within_s * number / len(clients), client.transport.disconnect, False
                )
            else:
                client.transport.disconnect(False)

    def halt(self, *symbols: str) -> None:
        """Send nothing of these symbols any more, but what a subscription brings."""
        self.faults.halted = frozenset(symbols)
        self._turn = None

    def stall(self, for_s: float) -> None:
        """Send no data for so long; heartbeats go on."""
        self.faults.stalled_until_s = time() + for_s

    def say(self, payload: bytes) -> None:
        """Send a text frame to everybody."""
        for client in self.clients:
            client.send(payload)

    def measured(self) -> SimulatorStatistics:
        """Return the statistics as of now."""
        statistics = self.statistics
        statistics.connections = len(self.clients)
        statistics.streams = len(self._heard)
        statistics.cpu_s = process_time()
        statistics.uptime_s = time() - self._started_s
        return statistics
