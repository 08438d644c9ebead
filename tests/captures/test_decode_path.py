"""Every capture goes emulator -> socket -> transport -> session -> adapter -> pipeline -> memory,
and what comes out equals an independent count of its raw frames, to the digit and in order."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from time import time_ns
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import numpy as np
import pytest

from feeds.binance import Binance
from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import Endpoint, FeedAdapter, RestRequest, TradeNumbers
from ingestor.adapter.contract import Subscription
from ingestor.adapter.instrument_list import read_list
from ingestor.books.repair_planner import Repair
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.frame_queue import FrameQueue, take_reads
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.batch import TickBatch
from ingestor.model.errors import TransportError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Flag, Kind, Side
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sources.websocket.interface import Connect, ConnectOptions, Link
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.reference.reader import (
    CAPTURES,
    Capture,
    Level,
    Quote,
    Trade,
    expected_levels,
    of,
    read,
)

ADAPTERS: dict[str, type[FeedAdapter]] = {
    adapter.venue: adapter for adapter in (Binance, Bybit, Coinbase, Kraken, Okx)
}
CHANNELS = ("trades", "quotes", "book")
SIDE_OF_TRADE = {Side.BID: "buy", Side.ASK: "sell"}
SIDE_OF_LEVEL = {Side.BID: "bid", Side.ASK: "ask"}


@dataclass
class Sink:
    """Memory. Also does what a supervisor does about repairs: here, only the first snapshots."""

    pipeline: Pipeline
    batches: list[TickBatch] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    rejected: list[Any] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def flush(self) -> None:
        result = self.pipeline.flush(time_ns())
        self.batches += result.batches
        self.repairs += result.repairs
        self.rejected += result.rejected
        self.arrived.set()

    def rows(self, row_class: RowClass) -> np.ndarray[Any, Any]:
        some = [batch.rows for batch in self.batches if batch.row_class is row_class]
        return np.concatenate(some) if some else np.zeros(0)


class Connection(SessionEvents):
    """A transport's handler: one session, flushed at the end of each burst."""

    def __init__(self, sink: Sink, frame_queue: FrameQueue) -> None:
        self.session: Session
        self.arrive = frame_queue.arrive
        self.take = take_reads(frame_queue, self.on_read_complete)
        self._sink = sink
        self._link: Link | None = None
        self.failure: TransportError | None = None

    def opened(self, link: Link) -> None:
        self._link = link
        for frame in self.session.opened():
            link.send(frame)

    def reply(self, session: Session, payload: bytes) -> None:
        assert self._link is not None
        self._link.send(payload)

    def on_read_complete(self) -> None:
        self._sink.flush()

    def closed(self, failure: TransportError) -> None:
        self.failure = failure


class Run:
    """One capture played into one pipeline."""

    def __init__(self, emulator: VenueEmulator, capture: Capture, connect: Connect) -> None:
        self.emulator = emulator
        self.capture = capture
        self.adapter = ADAPTERS[capture.venue]
        self.table = InstrumentTable()
        pipeline = Pipeline(self.table, self._rule_of, None, self._trade_numbers_of)
        self.sink = Sink(pipeline)
        self.connections: list[Connection] = []
        self.snapshots: set[str] = set()
        self._connect = connect

    def _trade_numbers_of(self, instrument: int) -> TradeNumbers:
        return self.adapter.markets[self.table[instrument].market].trade_numbers

    def _rule_of(self, instrument: int) -> Any:
        return self.adapter.markets[self.table[instrument].market].book

    @property
    def markets(self) -> list[str]:
        return list(dict.fromkeys(map(self.capture.market_of, self.capture.symbols)))

    async def play(self) -> None:
        async with aiohttp.ClientSession(self.emulator.rest_url) as http:
            for market in self.markets:
                await self._learn(http, market)
            links = [await self._open(*one) for one in self._planned()]
            await self._until(lambda: not any(one.session.pending for one in self.connections))
            self.emulator.start()
            await asyncio.wait_for(self.emulator.finished.wait(), 60)
            sent = self.emulator.statistics.frames_sent
            data = sent.total() - sent["heartbeats:heartbeats"]  # control, to a session
            await self._until(lambda: self.counts.data >= data)
            await self._synchronise(http)
            for link in links:
                link.close()
            await self._until(lambda: all(one.failure for one in self.connections))

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self.sink.flush()  # frames are counted when they are sealed
                await asyncio.sleep(0.005)
        self.sink.flush()

    async def _get(self, http: aiohttp.ClientSession, request: RestRequest) -> bytes:
        async with http.get(f"{request.path}?{urlencode(request.query)}") as answer:
            assert answer.status == 200
            return await answer.read()

    async def _learn(self, http: aiohttp.ClientSession, market: str) -> None:
        """Fill the table with the capture's instruments of one market."""
        requests = self.adapter.instrument_requests(market)
        bodies = [await self._get(http, request) for request in requests]
        found = {one.symbol: one for one in read_list(self.adapter, market, bodies).instruments}
        for symbol in self.capture.symbols:
            if self.capture.market_of(symbol) == market:
                self.table.add(found[symbol])

    def _planned(self) -> Iterable[tuple[str, Endpoint, list[Subscription]]]:
        for market in self.markets:
            symbols = self.table.symbols(self.capture.venue, market)
            names = self.adapter(market, symbols)
            for endpoint in self.adapter.markets[market].endpoints:
                yield (
                    market,
                    endpoint,
                    [
                        Subscription(number, symbol, channel, names.stream(channel, symbol))
                        for symbol, number in symbols.items()
                        for channel in CHANNELS
                        if channel in endpoint.channels
                    ],
                )

    @property
    def counts(self) -> FrameCounts:
        """The sum of all markets."""
        names = [one.name for one in fields(FrameCounts)[:7]]
        counts = self.sink.pipeline.frame_queues.counts.values()
        return FrameCounts(*(sum(getattr(one, name) for one in counts) for name in names))

    async def _open(
        self, market: str, endpoint: Endpoint, subscriptions: list[Subscription]
    ) -> Link:
        adapter = self.adapter(market, self.table.symbols(self.capture.venue, market))
        frame_queue = self.sink.pipeline.frame_queues.of(self.adapter, market)
        connection = Connection(self.sink, frame_queue)
        connection.session = Session(
            len(self.connections),
            adapter,
            subscriptions,
            frame_queue.buffer,
            frame_queue.counts,
            connection,
            market,
            frame_queue.decode,
        )
        self.connections.append(connection)
        url = self.emulator.ws_url + urlsplit(endpoint.url).path
        return await self._connect(ConnectOptions(url, frame_bytes_max=32 << 20), connection)

    async def _synchronise(self, http: aiohttp.ClientSession) -> None:
        """Fetch the books that the pipeline asks for, as long as it asks."""
        while self.sink.repairs:
            repairs, self.sink.repairs = self.sink.repairs, []
            for repair in repairs:
                assert repair.cause is None, "a book broke that is whole in the capture"
                session = next(
                    one.session
                    for one in self.connections
                    if repair.instrument in one.session.instruments(RowClass.LEVEL)
                )
                symbol = self.table[repair.instrument].symbol
                request = session.adapter.snapshot_request(symbol)
                if request is not None and symbol not in self.snapshots:  # asked again if slow
                    self.snapshots.add(symbol)
                    assert session.snapshot(symbol, await self._get(http, request), time_ns())
            self.sink.flush()

    # What came out, in the terms of the reference ---------------------------------------------

    def decimals(self, row: Any, price: str, size: str) -> tuple[Decimal, Decimal]:
        one = self.table[int(row["instrument"])]
        return (
            Decimal(int(row[price])).scaleb(-one.price_exponent),
            Decimal(int(row[size])).scaleb(-one.size_exponent),
        )

    def of_symbol(self, row_class: RowClass, symbol: str) -> list[Any]:
        rows = self.sink.rows(row_class)
        if not len(rows):
            return []
        market = self.capture.market_of(symbol)
        number = self.table.symbols(self.capture.venue, market)[symbol]
        return list(rows[rows["instrument"] == number])

    def trades(self, symbol: str) -> list[Trade]:
        found = []
        for row in self.of_symbol(RowClass.TRADE, symbol):
            assert row["kind"] == Kind.TRADE, "a mark where nothing is missing"
            price, size = self.decimals(row, "price", "size")
            trade_id = int(row["trade_id_high"]) << 64 | int(row["trade_id_low"])
            side = SIDE_OF_TRADE[row["side"]]
            sequence, time = int(row["sequence"]), int(row["ts_event"])
            found.append(Trade(symbol, side, price, size, trade_id, sequence, time))
        return found

    def quotes(self, symbol: str) -> list[Quote]:
        found = []
        for row in self.of_symbol(RowClass.QUOTE, symbol):
            assert row["kind"] == Kind.QUOTE, "a mark where nothing is missing"
            bid = self.decimals(row, "bid_price", "bid_size")
            ask = self.decimals(row, "ask_price", "ask_size")
            time = None if row["flags"] & Flag.NO_VENUE_TIME else int(row["ts_event"])
            found.append(Quote(symbol, *bid, *ask, int(row["sequence"]), time))
        return found

    def levels(self, symbol: str) -> list[Level]:
        """Every level published, the marks left out."""
        found = []
        for row in self.of_symbol(RowClass.LEVEL, symbol):
            assert row["kind"] in {Kind.LEVEL, Kind.RESET}, "a gap where nothing is missing"
            if row["kind"] == Kind.LEVEL:
                found.append(
                    Level(SIDE_OF_LEVEL[row["side"]], *self.decimals(row, "price", "size"))
                )
        return found


def transport(name: str) -> Connect:
    module = importlib.import_module(f"ingestor.sources.websocket.{name}")
    connect: Connect = module.connect
    return connect


TRANSPORTS = ("picows", "websockets")


@pytest.mark.captures
@pytest.mark.parametrize(("name", "connect"), list(zip(CAPTURES, cycle(TRANSPORTS), strict=False)))
async def test_a_capture_through_the_decode_path(name: str, connect: str, captures: Path) -> None:
    await check_capture(name, connect, captures)


@pytest.mark.long(minutes=1)
@pytest.mark.captures
@pytest.mark.parametrize("connect", TRANSPORTS)
@pytest.mark.parametrize("name", CAPTURES)
async def test_a_capture_through_either_transport(name: str, connect: str, captures: Path) -> None:
    await check_capture(name, connect, captures)


async def check_capture(name: str, connect: str, captures: Path) -> None:
    capture = read(captures / name)
    async with VenueEmulator(
        [captures / name], speed=MAX_SPEED, start_when="manual", snapshots="recorded"
    ) as emulator:
        run = Run(emulator, capture, transport(connect))
        await run.play()

    assert not run.sink.rejected
    for symbol in capture.symbols:
        assert run.trades(symbol) == of(capture.trades, symbol)
        rule = run.adapter.markets[capture.market_of(symbol)].book
        if not rule.quotes_from_book:
            assert run.quotes(symbol) == of(capture.quotes, symbol)
        assert run.levels(symbol) == expected_levels(capture.book(symbol), rule.depth_max)
    check_ledger(run)


def check_ledger(run: Run) -> None:
    """Every frame and every row is accounted for, and the sums are those of the reference."""
    capture, counts = run.capture, run.counts
    assert counts.unaccounted == 0
    assert counts.rejected == 0
    assert run.snapshots == set(capture.snapshots)
    ledger = run.sink.pipeline.ledger()
    assert ledger.unaccounted == 0
    assert ledger.held == 0
    from_rest = sum(len(update.levels) for update in capture.snapshots.values())
    assert ledger.decoded == (
        len(capture.trades) + len(capture.quotes) + capture.levels + from_rest
    )
    published = sum(len(update.levels) for s in capture.symbols for update in capture.book(s))
    assert ledger.filtered == capture.levels + from_rest - published
