"""A venue without sockets: markets, and links that speak the dialect of feeds/simulated.py."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import orjson

from feeds.simulated import Simulated
from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import InstrumentList, read_entries
from ingestor.model.errors import HandshakeRejected, PeerClosed, TransportError
from ingestor.sources.websocket.interface import (
    Arrive,
    ClosedByUs,
    ConnectFailed,
    ConnectOptions,
    Handler,
    OpenTimeout,
)
from tests.simulation.market import Changes, Market

_BACKLOG_MAX: Final = 20_000  # frames that wait for a reader, before it is given up
LATENCY_S: Final = 0.02


class Link:
    """One connection: the client's `Link`, and the venue's end of it."""

    def __init__(self, venue: Venue, options: ConnectOptions, handler: Handler) -> None:
        self.venue = venue
        self.url = options.url
        self._clock_ns = options.clock_ns
        self.handler = handler
        self.received_ns = self._clock_ns()
        self.streams: dict[str, None] = {}
        self.is_open = True
        self.is_stalled = False  # a half-open connection: nothing passes, in either direction
        self.passed_s = -float("inf")  # when it was last stalled no longer
        self.is_mute = False  # open and healthy, but no data come until its end
        self._is_paused = False
        self._arrive: Arrive = handler.arrive
        self._way: deque[list[bytes]] = deque()  # frames on their way to the client
        self._backlog: list[bytes] = []
        self._upstream: list[Callable[[], None]] = []
        # On their way to the venue. Timers of the same moment may end in any order: these don't.
        self._sent: deque[Callable[[], None]] = deque()

    # The client's side

    def send(self, payload: bytes) -> None:
        self._to_venue(lambda: self.venue.receive(self, payload))

    def ping(self) -> None:
        self._to_venue(lambda: self.push([]))

    def close(self) -> None:
        asyncio.get_running_loop().call_later(
            LATENCY_S, self.end, ClosedByUs(self.url, "closed by us")
        )

    def abort(self) -> None:
        asyncio.get_running_loop().call_soon(self.end, ClosedByUs(self.url, "aborted by us"))

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        asyncio.get_running_loop().call_soon(self._read)

    def deliver_to(self, arrive: Arrive) -> None:
        self._arrive = arrive

    # The venue's side

    def push(self, frames: list[bytes]) -> None:
        """Send frames; none is a pong."""
        self._way.append(frames)
        asyncio.get_running_loop().call_later(LATENCY_S, self._arrived)

    def stall(self, *, is_stalled: bool) -> None:
        self.is_stalled = is_stalled
        if not is_stalled:
            self.passed_s = asyncio.get_running_loop().time()
            upstream, self._upstream = self._upstream, []
            for call in upstream:
                call()
            self._read()

    def end(self, failure: TransportError) -> None:
        """The connection is gone, for both."""
        if not self.is_open:
            return
        self.is_open = False
        self.venue.links.pop(self, None)
        self._way.clear()
        self._backlog.clear()
        self.handler.closed(failure)

    def _to_venue(self, call: Callable[[], None]) -> None:
        self._sent.append(call)
        asyncio.get_running_loop().call_later(LATENCY_S, self._at_venue)

    def _at_venue(self) -> None:
        call = self._sent.popleft()
        if not self.is_open:
            return
        if self.is_stalled:
            self._upstream.append(call)
        else:
            call()

    def _arrived(self) -> None:
        if not self._way:
            return
        frames = self._way.popleft()
        self._backlog += frames
        if not (self.is_stalled or self._is_paused):
            self.received_ns = self._clock_ns()
            self._read()
        elif len(self._backlog) > _BACKLOG_MAX:
            self.venue.close(self, PeerClosed(self.url, 1008, "slow consumer"))

    def _read(self) -> None:
        if not self.is_open or self.is_stalled or self._is_paused or not self._backlog:
            return
        self.received_ns = ts_recv = self._clock_ns()
        frames, self._backlog = self._backlog, []
        for frame in frames:
            self._arrive((self.handler.session, frame, ts_recv))
        self.handler.on_read_complete()


@dataclass
class Excuses:
    """What the venue did that a GAP or a reconnect may be owed to. By symbol, but for links."""

    dropped: Counter[str] = field(default_factory=Counter)  # book updates that were not sent
    malformed: Counter[str] = field(default_factory=Counter)
    revised: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)  # links, by why


class Venue:
    """All markets and links. `connect` takes the place of a transport."""

    def __init__(self, symbols: int, random: Random, probability: float, step_s: float) -> None:
        """Args:
        symbols: how many are listed.
        random: of all that is drawn.
        probability: of a move of a market in each step.
        step_s: between two steps, on average.
        """
        self._random = random
        self._probability = probability
        self._step_s = step_s
        self.markets: dict[str, Market] = {}
        for _ in range(symbols):
            self.list_symbol()
        self.links: dict[Link, None] = {}
        self.excuses = Excuses()
        self.refuse_until_s = -1.0
        self.refusal = 0  # HTTP status; 0 = no listener, 1 = no answer
        self.spoil: deque[str] = deque()  # what becomes of the next frames: drop, malform, repeat
        self.is_deaf = False  # requests are not answered
        self.hides_list = False  # the list of instruments can't be had
        self.is_still = False  # nothing happens any more
        self.farewell: bytes | None = b'{"op":"reconnect","text":"maintenance"}'
        self.pongs_due: dict[Link, int] = {}

    # Listings

    def list_symbol(self) -> Market:
        """List a new symbol."""
        symbol = f"S{len(self.markets):05}-USD"
        market = self.markets[symbol] = Market(symbol, Random(self._random.random()))
        return market

    @property
    def listed(self) -> InstrumentList:
        """What the venue's list of instruments says."""
        entries = [
            {
                "symbol": market.symbol,
                "base": market.symbol.partition("-")[0],
                "quote": "USD",
                "tick_size": market.tick_text,
                "lot_size": "0.0001",
                "trading": not market.is_said_to_be_halted,
            }
            for market in self.markets.values()
            if market.is_listed
        ]
        return read_entries(Simulated, "spot", entries)

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList:
        """Answer as `Catalog.load` does."""
        await asyncio.sleep(LATENCY_S)
        return self.listed

    async def refresh(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList | None:
        """Answer as `Catalog.refresh` does: None when the list can't be had."""
        await asyncio.sleep(LATENCY_S)
        return None if self.hides_list else self.listed

    # Connections

    async def connect(self, options: ConnectOptions, handler: Handler) -> Link:
        """Open a connection, as `picows.connect` does."""
        await asyncio.sleep(2 * LATENCY_S)
        if asyncio.get_running_loop().time() < self.refuse_until_s:
            if self.refusal == 1:
                await asyncio.sleep(options.open_timeout_s)
                raise OpenTimeout(options.url, "no answer")
            if self.refusal:
                retry_after_s = 5.0 if self.refusal == 429 else None
                raise HandshakeRejected(options.url, self.refusal, retry_after_s=retry_after_s)
            raise ConnectFailed(options.url, "refused")
        link = self._link(options, handler)
        self.links[link] = None
        handler.opened(link)
        return link

    def _link(self, options: ConnectOptions, handler: Handler) -> Link:
        return Link(self, options, handler)

    def is_book(self, stream: str) -> bool:
        return stream.startswith("book:")

    def symbol_of(self, stream: str) -> str:
        return stream.partition(":")[2]

    def dropped(self, link: Link, symbol: str, frame: bytes) -> None:
        """A frame of a book is lost."""
        self.excuses.dropped[symbol] += 1

    def close(self, link: Link, failure: TransportError) -> None:
        """End a connection from the venue's side."""
        self.excuses.ended["venue"] += 1
        link.end(failure)

    def receive(self, link: Link, payload: bytes) -> None:
        """Take a client's message."""
        message: Any = orjson.loads(payload)
        match message:
            case {"op": "pong"}:
                self.pongs_due.pop(link, None)
            case {"op": "subscribe", "streams": [*streams]}:
                self._subscribe(link, streams)
            case {"op": "unsubscribe", "streams": [*streams]}:
                for stream in streams:
                    link.streams.pop(stream, None)
            case _:
                raise AssertionError(f"no request: {message}")

    def _subscribe(self, link: Link, streams: list[str]) -> None:
        good = [stream for stream in streams if self.knows(stream)]
        bad = [stream for stream in streams if stream not in good]
        frames: list[bytes] = []
        if good and not self.is_deaf:
            frames.append(orjson.dumps({"op": "ack", "streams": good}))
        if bad and not self.is_deaf:
            frames.append(orjson.dumps({"op": "error", "streams": bad, "text": "unknown"}))
        for stream in good:
            link.streams[stream] = None
            kind, _, symbol = stream.partition(":")
            if kind == "book" and not link.is_mute:
                frames.append(self.markets[symbol].snapshot_frame())
        link.push(frames)

    def knows(self, stream: str) -> bool:
        """Whether a stream can be subscribed to now."""
        market = self.markets.get(stream.partition(":")[2])
        return market is not None and market.is_listed

    # What happens

    async def run(self) -> None:
        """Move the markets, send heartbeats and pings, until cancelled."""
        loop, random = asyncio.get_running_loop(), self._random
        heartbeat_s, ping_s = loop.time() + 5.0, loop.time() + 60.0
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * self._step_s)
            if loop.time() >= heartbeat_s:
                heartbeat_s = loop.time() + 5.0
                self.say(b'{"op":"heartbeat"}')
            if loop.time() >= ping_s:
                ping_s = loop.time() + 60.0
                self.say(b'{"op":"ping","id":7}')
            if not self.is_still:
                self._happen(self._probability)

    def say(self, payload: bytes) -> None:
        for link in list(self.links):
            link.push([payload])

    def _happen(self, probability: float) -> None:
        """Let some markets move, and send what each link is subscribed to of that."""
        random = self._random
        news: list[tuple[str, str, bytes]] = []
        for market in self.markets.values():
            if market.is_listed and not market.is_halted and random.random() < probability:
                news += self._moved(market, market.move())
        self.send(news)

    def _moved(self, market: Market, changes: Changes) -> Iterable[tuple[str, str, bytes]]:
        symbol = market.symbol
        yield f"book:{symbol}", symbol, market.book_frame(changes)
        if self._random.random() < 0.6:
            yield f"quote:{symbol}", symbol, market.quote_frame()
        if self._random.random() < 0.4:
            yield f"trade:{symbol}", symbol, market.trade_frame(market.print_trade())

    def send(self, news: list[tuple[str, str, bytes]]) -> None:
        """Send frames to the links that are subscribed to their streams."""
        for link in list(self.links):
            if link.is_mute:
                continue
            frames: list[bytes] = []
            for stream, symbol, frame in news:
                if stream in link.streams:
                    frames += self._spoiled(link, stream, symbol, frame)
            if frames:
                link.push(frames)

    def _spoiled(self, link: Link, stream: str, symbol: str, frame: bytes) -> list[bytes]:
        is_book = self.is_book(stream)
        if not self.spoil:
            return [frame]
        match self.spoil[0]:
            case "drop" if is_book:
                self.spoil.popleft()
                self.dropped(link, symbol, frame)
                return []
            case "malform":
                self.spoil.popleft()
                for one in link.streams:
                    self.excuses.malformed[self.symbol_of(one)] += 1
                return [frame[: len(frame) // 2]]
            case "repeat" if is_book:
                self.spoil.popleft()
                return [frame, frame]
        return [frame]

    def set_decimals(self, market: Market, decimals: int) -> None:
        """Change a market's tick, and send the update that goes with it."""
        self.excuses.revised[market.symbol] += 1
        self.send(list(self._moved(market, market.set_decimals(decimals))))
