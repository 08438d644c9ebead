"""HTX's books of images: what is asked for, where, and what becomes of each form's frames."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from feeds.htx import Htx
from feeds.htx.adapter import adapter
from ingestor.adapter import MILLISECOND, OTHER_BOOK, BookOffer
from ingestor.adapter.book_offers import adapter_with, choose, offer_named
from ingestor.columns.buffer import ColumnBuffer
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sources.live.plan import Wanted, make_plan
from tests.feeds.fixtures import load
from tests.feeds.harness import TS_RECV, Connection

NOW_MS = 1_767_225_600_000
Side = list[list[int]]
IMAGES = [
    (market, offer) for market, described in Htx.markets.items() for offer in described.books[1:]
]
each_form = pytest.mark.parametrize(("market", "offer"), IMAGES)


def frame(stream: str, version: int, bids: Side, asks: Side) -> bytes:
    numbers = {"seqNum": version} if "refresh" in stream else {"version": version, "ts": NOW_MS}
    tick = {"bids": bids, "asks": asks, **numbers}
    return gzip.compress(orjson.dumps({"ch": stream, "ts": NOW_MS, "tick": tick}))


def increments(market: str, symbol: str) -> bytes:
    stream = Htx(market, {symbol: 0}).stream("book", symbol)
    tick: dict[str, Any] = {"seqNum": 2, "prevSeqNum": 1, "bids": [[1, 1]], "asks": []}
    tick |= {"event": "update", "version": 2, "ts": NOW_MS}
    return gzip.compress(orjson.dumps({"ch": stream, "ts": NOW_MS, "tick": tick}))


def test_the_forms() -> None:
    forms = [(market, offer.depth, offer.speed_ms) for market, offer in IMAGES]
    assert forms == [
        ("spot", 150, 1_000),
        ("spot", 20, 100),
        ("linear", 150, 100),
        ("inverse", 150, 100),
    ]


@each_form
def test_images_are_asked_for_at_their_address_and_found_again(
    market: str, offer: BookOffer
) -> None:
    table = InstrumentTable(load(adapter, market).instruments)
    wanted = Wanted(adapter, market, (0,), ("trades", "book"), book=offer)
    (planned,) = make_plan([wanted], table)
    assert planned.url == Htx.markets[market].endpoints[0].url
    symbol = table[0].symbol
    made = adapter_with(adapter, market, {symbol: 0}, offer)
    stream = made.stream("book", symbol)
    assert stream in planned.streams
    (sent,) = made.subscribe([stream])
    assert orjson.loads(sent) == {"sub": stream, "id": "1"}
    assert offer_named(adapter, market, [stream]) == offer


@each_form
def test_each_image_is_the_whole_book(market: str, offer: BookOffer) -> None:
    fixture = load(adapter, market)
    table = InstrumentTable(fixture.instruments)
    rule = offer.rule
    assert rule is not None
    pipeline = Pipeline(table, lambda _: rule)
    queue = pipeline.frame_queues.of(adapter, market, offer)
    connection = Connection(fixture, table, queue.buffer, queue.counts)
    choose(connection.adapter, offer)
    stream = connection.adapter.stream("book", table[0].symbol)
    scale = 10 ** table[0].size_exponent
    found: list[list[tuple[int, int]]] = []
    books: list[tuple[Side, Side]] = [
        ([[10, 1], [9, 2]], [[11, 3]]),
        ([[10, 4]], [[11, 3], [12, 5]]),
    ]
    for version, (bids, asks) in enumerate(books, 7):
        connection.session.receive(frame(stream, version, bids, asks), TS_RECV)
        rows = [row for batch in pipeline.flush(TS_RECV).batches for row in batch.rows]
        assert int(rows[-1]["ts_event"]) == NOW_MS * MILLISECOND
        found.append([(int(row["kind"]), int(row["size"]) // scale) for row in rows])
    level = int(Kind.LEVEL)
    assert found[0][0][0] == Kind.RESET
    assert sorted(found[0][1:]) == [(level, 1), (level, 2), (level, 3)]
    assert sorted(found[1]) == [(level, 0), (level, 4), (level, 5)]
    assert queue.counts.rejected == 0


@each_form
def test_frames_tell_their_form(market: str, offer: BookOffer) -> None:
    """A recording may have frames alone, without what was asked for."""
    symbol = load(adapter, market).instruments[0].symbol
    stream = adapter_with(adapter, market, {}, offer).stream("book", symbol)
    first = Htx(market, {})
    assert first.streams_of(frame(stream, 1, [], [])) == (stream,)
    assert first.streams_of(increments(market, symbol)) == (first.stream("book", symbol),)
    fewer = {"spot": "mbp.150"}.get(market, "depth.size_20.high_freq")
    named = first.streams_of(frame(f"market.{symbol}.{fewer}", 1, [], []))
    assert named == (first.stream("book", symbol),)


@each_form
def test_frames_of_other_forms_are_left_out(market: str, offer: BookOffer) -> None:
    table = InstrumentTable(load(adapter, market).instruments)
    symbols, symbol = table.symbols("htx", market), table[0].symbol
    buffer = ColumnBuffer(table)
    chosen = adapter_with(adapter, market, symbols, offer)
    image = frame(chosen.stream("book", symbol), 1, [[1, 1]], [])
    first = adapter(market, symbols)
    assert first.decode(image, NOW_MS, buffer) is OTHER_BOOK
    assert chosen.decode(increments(market, symbol), NOW_MS, buffer) is OTHER_BOOK
    assert not buffer.seal(table).rows
