"""A day in the life: five exchanges, hundreds of symbols, and everything that a day may bring.

    python -m tests.simulation.day --symbols 40 --hours 24 1 2

runs some seeds. What must hold is what `tests.simulation.run` says: the process lives, no sibling
is touched, every hole is declared, the ledger is balanced, the last books are the venues' own.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from time import process_time
from typing import Any, Final
from unittest import mock
from urllib.parse import urlsplit

import orjson
import structlog

from ingestor.adapter import FeedAdapter, RestRequest
from ingestor.adapter.instrument_list import InstrumentList, read_list
from ingestor.config.model import Config
from ingestor.model.errors import PeerClosed, TransportError
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause
from ingestor.sources.live import supervisor
from ingestor.sources.rest.pool import RestPools
from ingestor.sources.websocket.interface import ConnectOptions, Handler
from tests.simulation.dialects import DIALECTS, DayMarket, Dialect
from tests.simulation.faults import Faults
from tests.simulation.market import Changes, Market
from tests.simulation.run import Outcome, World, simulated, simulation
from tests.simulation.venue import LATENCY_S, Excuses, Link, Venue
from tests.simulation.virtual import Time

_DAY_S: Final = 86_400.0
_NUMBER: Final = re.compile(rb'"sequence_num":\s*(\d+)')
_STREAMS_MAX: Final = 60  # of a connection
_FIRST: Final = 1  # number of the first symbol


class DayLink(Link):
    """A connection, as the emulator's venues know one."""

    def __init__(self, venue: DayVenue, options: ConnectOptions, handler: Handler) -> None:
        super().__init__(venue, options, handler)
        self.name = "c0ffee"
        self.path = urlsplit(options.url).path
        self.opened_s = asyncio.get_running_loop().time()
        self.fresh: list[str] = []  # streams of the request that is being read
        self._numbers = iter(range(1 << 40))

    @property
    def subscribed(self) -> Iterable[str]:
        return list(self.streams)

    def subscribe(self, stream: str) -> bool:
        if not (stream == "heartbeats:heartbeats" or self.venue.knows(stream)):
            return False
        self.streams[stream] = None
        self.fresh.append(stream)
        return True

    def offers(self, stream: str) -> bool:
        return self.venue.knows(stream)

    def depth_of(self, stream: str) -> int | None:
        return None  # any

    def unsubscribe(self, stream: str) -> bool:
        return self.streams.pop(stream, True) is None

    def has_symbol(self, symbol: str) -> bool:
        market = self.venue.markets.get(symbol)
        return market is not None and market.is_listed

    def push(self, frames: list[bytes]) -> None:
        """Send frames, each with the connection's own number where the venue counts so."""
        super().push([self.numbered(frame) for frame in frames])

    def numbered(self, frame: bytes) -> bytes:
        if b'"sequence_num":0' not in frame:
            return frame
        return frame.replace(b'"sequence_num":0', b'"sequence_num":%d' % next(self._numbers), 1)


class DayVenue(Venue):
    """One exchange, in its own words."""

    def __init__(
        self, dialect: Dialect, symbols: int, random: Random, step_s: float, excuses: Excuses
    ) -> None:
        self.dialect = dialect
        self.odd: set[str] = set()  # symbols whose entry of the list can't be read
        self.links: dict[Link, None] = {}
        super().__init__(symbols, random, 0.7, step_s)
        self.excuses = excuses
        self.farewell = dialect.farewell

    def list_symbol(self) -> Market:
        symbol = self.dialect.symbol(len(self.markets) + _FIRST)
        market = DayMarket(symbol, Random(self._random.random()), self.dialect)
        self.markets[symbol] = market
        return market

    @property
    def listed(self) -> InstrumentList:
        adapter, market = self.dialect.adapter, self.dialect.market
        bodies = []
        for request in adapter.instrument_requests(market):
            known = [one for one in self.markets.values() if one.is_listed]
            body = self.dialect.list_body(known, dict(request.query))  # type: ignore[arg-type]
            for one, entry in zip(known, self.dialect.entries(body), strict=False):
                if one.is_said_to_be_halted:
                    self.dialect.halt(entry)
                if one.symbol in self.odd:
                    self.dialect.spoil(entry)
            bodies.append(orjson.dumps(body))
        return read_list(adapter, market, bodies)

    def _link(self, options: ConnectOptions, handler: Handler) -> Link:
        return DayLink(self, options, handler)

    def knows(self, stream: str) -> bool:
        symbol, kind = self.dialect.parts(stream)
        market = self.markets.get(symbol)
        return bool(kind) and market is not None and market.is_listed

    def symbol_of(self, stream: str) -> str:
        return self.dialect.parts(stream)[0]

    def receive(self, link: Link, payload: bytes) -> None:
        assert isinstance(link, DayLink)
        link.fresh = []
        frames = list(self.dialect.venue.receive(payload, link))
        is_ping = b"ping" in payload and b"ubscri" not in payload
        if self.is_deaf and not is_ping:
            frames = []
        for stream in link.fresh:
            symbol, kind = self.dialect.parts(stream)
            if kind == "book" and self.dialect.sends_images and not link.is_mute:
                frames.append(self._image(symbol))
        link.push(frames)

    def _image(self, symbol: str) -> bytes:
        market = self.markets[symbol]
        assert isinstance(market, DayMarket)
        return self.dialect.book(market, market.levels, is_image=True)

    def depth(self, symbol: str) -> bytes:
        """Answer a REST request for a book."""
        return self._image(symbol)

    def say(self, payload: bytes) -> None:
        """The heartbeats and pings of the simulated venue's dialect are none of ours."""

    def _moved(self, market: Market, changes: Changes) -> Iterator[tuple[str, str, bytes]]:
        assert isinstance(market, DayMarket)
        dialect, symbol = self.dialect, market.symbol
        yield dialect.stream("book", symbol), symbol, dialect.book(market, changes, is_image=False)
        market.seen = market.view
        if self._random.random() < 0.6:
            frame = dialect.quote(market)
            if frame is not None:
                market.quotes[market.number] = market.quote
                yield dialect.stream("quotes", symbol), symbol, frame
        if self._random.random() < 0.4:
            yield (
                dialect.stream("trades", symbol),
                symbol,
                dialect.trade(market, market.print_trade()),
            )

    def _happen(self, probability: float) -> None:
        super()._happen(probability)
        for link in list(self.links):
            assert isinstance(link, DayLink)
            if asyncio.get_running_loop().time() - link.opened_s > _DAY_S:
                self.close(link, PeerClosed(link.url, 1008, "24 hours"))

    def is_book(self, stream: str) -> bool:
        return self.dialect.parts(stream)[1] == "book"

    def dropped(self, link: Link, symbol: str, frame: bytes) -> None:
        """A frame is lost: where the venue counts per connection, all of it has a hole."""
        assert isinstance(link, DayLink)
        if link.numbered(frame) == frame:
            self.excuses.dropped[symbol] += 1
            return
        for stream in link.streams:
            self.excuses.dropped[self.symbol_of(stream)] += 1


class Venues:
    """All exchanges, as the world's one venue."""

    def __init__(self, symbols: int, random: Random, step_s: float) -> None:
        self.excuses = Excuses()
        share = -(-symbols // len(DIALECTS))
        self.all = [
            DayVenue(kind(), share, Random(random.random()), step_s, self.excuses)
            for kind in DIALECTS
        ]
        self._by_host = {
            urlsplit(endpoint.url).hostname: venue
            for venue in self.all
            for endpoint in venue.dialect.adapter.markets[venue.dialect.market].endpoints
        }
        self._by_name = {venue.dialect.name: venue for venue in self.all}

    @property
    def markets(self) -> dict[str, Market]:
        return {symbol: one for venue in self.all for symbol, one in venue.markets.items()}

    @property
    def links(self) -> list[Link]:
        return [link for venue in self.all for link in venue.links]

    def knows(self, stream: str) -> bool:
        return any(venue.knows(stream) for venue in self.all)

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList:
        return await self._by_name[adapter.venue].load(adapter, market, rest_url)

    async def refresh(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList | None:
        return await self._by_name[adapter.venue].refresh(adapter, market, rest_url)

    async def connect(self, options: ConnectOptions, handler: Handler) -> Link:
        venue = self._by_host[urlsplit(options.url).hostname]
        return await venue.connect(options, handler)

    async def get(self, origin: str, request: RestRequest, _settings: object = None) -> bytes:
        """Answer what a repair asks for: a book of Binance's. Nobody keeps past trades here."""
        venue = self._by_name["binance"]
        await asyncio.sleep(2 * LATENCY_S)
        is_book = request.path.endswith("/depth")
        if not is_book or asyncio.get_running_loop().time() < venue.refuse_until_s:
            raise TransportError(origin, "refused")
        return venue.depth(str(dict(request.query)["symbol"]))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for venue in self.all:
                group.create_task(venue.run())

    @property
    def is_still(self) -> bool:
        return all(venue.is_still for venue in self.all)

    @is_still.setter
    def is_still(self, value: bool) -> None:
        for venue in self.all:
            venue.is_still = value


class DayFaults:
    """Faults of all exchanges, at the same time."""

    def __init__(self, world: Day) -> None:
        self._faults = []
        for number, venue in enumerate(world.venues.all):
            faults = Faults(
                venue, world.broker, world.time, world.trace.note, Random(world.random.random())
            )
            faults.add("odd entry", 2, partial(self._odd, venue, world.random))
            faults.add("maintenance", 1, partial(self._maintenance, venue, world.random))
            if number:  # Kafka and the clock are everybody's: one of them is enough
                faults.forget("pause", "lose", "refuse rows", "clock")
            self._faults.append(faults)

    @property
    def happened(self) -> Counter[str]:
        return sum((one.happened for one in self._faults), Counter[str]())

    async def run(self, until_s: float, between_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            for one in self._faults:
                group.create_task(one.run(until_s, between_s * len(self._faults)))

    @staticmethod
    async def _odd(venue: DayVenue, random: Random) -> None:
        """An entry of the list can't be read for a while."""
        symbol = random.choice(list(venue.markets))
        venue.odd.add(symbol)
        await asyncio.sleep(random.uniform(10.0, 600.0))
        venue.odd.discard(symbol)

    @staticmethod
    async def _maintenance(venue: DayVenue, random: Random) -> None:
        """The whole exchange stops, closes its connections and refuses others."""
        duration_s = random.uniform(10.0, 300.0)
        venue.refusal, venue.refuse_until_s = 503, asyncio.get_running_loop().time() + duration_s
        for link in list(venue.links):
            if venue.farewell is not None:
                link.push([venue.farewell])
            venue.close(link, PeerClosed(link.url, 1012, "maintenance"))
        await asyncio.sleep(duration_s)


class Day(World):
    """Five exchanges in the place of one."""

    symbols: int = 20

    def _make_venue(self) -> Any:
        self.venues = Venues(self.symbols, self.random, self._pace)
        return self.venues

    def _make_faults(self) -> Any:
        return DayFaults(self)

    def _make_config(self) -> Config:
        feeds = [
            {
                "venue": venue.dialect.name,
                "market": venue.dialect.market,
                "symbols": ["*"],
                "streams_per_connection": _STREAMS_MAX,
            }
            for venue in self.venues.all
        ]
        content = super()._make_config().model_dump(mode="json", exclude_unset=True)
        content["feeds"] = feeds
        content["books"] |= {"audit_interval_s": 0}
        content["budget"] = {"rows": 8_000_000}
        return Config.model_validate(content)

    def _judge_reconnect(self, reason: str) -> bool:
        return True  # judged by `Faults`: only a farewell or an age of 24 hours asks for one

    def _allowed(self, symbol: str, row_class: RowClass, cause: Cause) -> int | None:
        excuses = self.venues.excuses
        if row_class is RowClass.TRADE and cause in {Cause.SEQUENCE, Cause.UNFILLED}:
            # The numbers of trades name what any hole lost, and it can't be fetched.
            key = symbol, row_class
            holes = self.trace.holes[key] + self.trace.probes[key]
            return holes + excuses.dropped[symbol] + excuses.malformed[symbol]
        if cause in {Cause.CHECKSUM, Cause.CROSSED, Cause.SEQUENCE}:
            trouble = excuses.dropped[symbol] + excuses.malformed[symbol]
            return 3 * trouble + 1_000 * excuses.revised[symbol]
        return None


@contextmanager
def _exchanges(world: Day, pace: float) -> Iterator[None]:
    """Put the simulated exchanges in the place of sockets and of REST."""

    async def client(_self: object, _adapter: object, _market: str, _origin: str) -> Venues:
        return world.venues

    transports = {**supervisor.TRANSPORTS, "picows": world.venues.connect}
    with (
        simulated(world.broker, pace),
        mock.patch.object(supervisor, "TRANSPORTS", transports),
        mock.patch.object(RestPools, "client", client),
    ):
        yield


def live_a_day(seed: int, seconds: float, between_s: float, pace: float, symbols: int) -> Outcome:
    """Run one seed; see `tests.simulation.run.simulate`.

    Args:
        seed: of everything that is drawn.
        seconds: virtual seconds in which things go wrong.
        between_s: from one fault to the next, on average.
        pace: seconds between two moves of the markets, on average.
        symbols: of all exchanges together.

    Raises:
        AssertionError: with all that did not hold.
    """

    def make(time: Time, random: Random) -> Day:
        day: Day = type("Day", (Day,), {"symbols": symbols})(time, random, pace)
        return day

    return simulation(seed, seconds, between_s, make, lambda world: _exchanges(world, pace))


def main() -> None:
    """`python -m tests.simulation.day`."""
    parser = argparse.ArgumentParser(description="Live some days.")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--between", type=float, default=120.0, help="seconds between two faults")
    parser.add_argument("--pace", type=float, default=60.0, help="seconds between two moves")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for seed in given.seeds:
        started_s = process_time()
        outcome = live_a_day(seed, given.hours * 3_600, given.between, given.pace, given.symbols)
        sys.stdout.write(f"{seed} {process_time() - started_s:.1f} s {outcome}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
