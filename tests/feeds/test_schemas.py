"""Every record of every topic follows its JSON Schema, for every market of every venue."""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from pathlib import Path

import orjson
import pytest

from ingestor.adapter import FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.adapter.instrument_list import read_list
from ingestor.app.auxiliary_records import AuxiliaryRecords
from ingestor.codec import encoder
from ingestor.decode.session import Session
from ingestor.kafka.settings import (
    BOOK_SNAPSHOT,
    DEAD_LETTER,
    INSTRUMENTS,
    QUARANTINE,
    STATUS,
)
from ingestor.model.batch import TickBatch
from ingestor.model.errors import PeerClosed
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Flag, Kind
from ingestor.sinks.kafka.auxiliary_queue import dead_letter, void
from ingestor.sources.live.plan import PlannedConnection, Route
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from tests.fakes.schemas import check
from tests.feeds.fixtures import Fixture, load, markets
from tests.feeds.harness import channels_of

MARKETS = [pytest.param(*pair, id=f"{pair[0].venue}_{pair[1]}") for pair in markets()]
SESSION = bytes(range(16))
each_market = pytest.mark.parametrize(("adapter", "market"), MARKETS)


class Kept:
    """A sink of side records that keeps them, by topic."""

    session = SESSION

    def __init__(self) -> None:
        self.records: defaultdict[str, list[bytes]] = defaultdict(list)

    def publish(self, topic: str, key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        assert key
        assert ts_ms > 0
        self.records[topic].append(value)


def recorded(fixture: Fixture, folder: Path) -> ReplayOptions:
    """Write a fixture's frames as a recording, and its instruments beside it."""
    lines: list[dict[str, object]] = [{"t": "header", "venue": fixture.adapter.venue}]
    for ts_ns, step in enumerate(fixture.steps, 1_800_000_000_000_000_000):
        if step.outcome == "control" and "refused" in step.wanted:
            continue  # the same streams bring rows elsewhere in the fixture
        line: dict[str, object] = {"ts_ns": ts_ns, "conn": "c", "data": step.value}
        if step.form:
            line = {"ts_ns": ts_ns, "conn": "c", "b64": b64encode(step.payload).decode()}
        if step.verb == "frame":
            lines.append({"t": "recv", **line})
        elif step.verb == "snapshot":
            feed = fixture.adapter(fixture.market, {})
            request = feed.snapshot_request(step.symbol)
            assert request is not None
            query = "&".join(f"{name}={value}" for name, value in request.query.items())
            lines.append({"t": "http", **line, "url": f"{request.path}?{query}"})
    path, instruments = folder / "frames.jsonl", folder / "instruments.json"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    instruments.write_bytes(orjson.dumps([one.to_json() for one in fixture.instruments]))
    return ReplayOptions((path,), venue=fixture.adapter.venue, market=fixture.market,
                         instruments=instruments)  # fmt: skip


@each_market
def test_ticks_frames_and_books(adapter: type[FeedAdapter], market: str, tmp_path: Path) -> None:
    fixture, kept = load(adapter, market), Kept()
    side = AuxiliaryRecords(kept)
    replay = Replay(recorded(fixture, tmp_path))
    writer = encoder("json", replay.table, SESSION)
    values: defaultdict[RowClass, list[bytes]] = defaultdict(list)
    letters = []
    for result in replay.results():
        side.observe(result, 0)
        for batch in result.batches:
            for record in writer.encode(batch.row_class, batch.rows, 0):
                values[batch.row_class].append(record[1])
                letters.append(dead_letter("md.x", 0, SESSION, 0, record, "refused"))
            _images(side, batch, replay)
    for row_class in map(ROW_CLASSES.of_channel, channels_of(adapter, market)):
        records = check(row_class.topic, values[row_class])
        assert {one["venue"] for one in records} == {adapter.venue}, row_class
    refused = [step for step in fixture.steps if step.outcome == "rejected"]
    assert len(check(QUARANTINE, kept.records[QUARANTINE])) >= len(refused) / 2
    assert check(BOOK_SNAPSHOT, kept.records[BOOK_SNAPSHOT])
    assert check(DEAD_LETTER, letters)


def _images(side: AuxiliaryRecords, batch: TickBatch, replay: Replay) -> None:
    """Publish the images in a batch as what they show of their books."""
    if batch.row_class is not RowClass.LEVEL:
        return
    rows = batch.rows
    position = {"topic": "md.book.v1", "partition": 0, "session": SESSION.hex(), "sequence": 7}
    for number in set(rows["instrument"].tolist()):
        of_image = (rows["kind"] == Kind.LEVEL) & ((rows["flags"] & Flag.SNAPSHOT) != 0)
        side.book(replay.table, rows[of_image & (rows["instrument"] == number)], position)


@each_market
def test_instruments_as_the_venue_lists_them(adapter: type[FeedAdapter], market: str) -> None:
    kept = Kept()
    listed = read_list(adapter, market, load(adapter, market).rest).instruments
    AuxiliaryRecords(kept).instruments(listed)
    records = check(INSTRUMENTS, kept.records[INSTRUMENTS])
    assert [one["symbol"] for one in records] == [one.symbol for one in listed]


@each_market
def test_what_becomes_of_connections(adapter: type[FeedAdapter], market: str) -> None:
    kept = Kept()
    side = AuxiliaryRecords(kept)
    fixture = load(adapter, market)
    symbols = fixture.table().symbols(adapter.venue, market)
    feed = adapter(market, symbols)
    [symbol, *_] = symbols
    one = Subscription(symbols[symbol], symbol, "trades", feed.stream("trades", symbol))
    url = adapter.markets[market].endpoints[0].url
    planned = PlannedConnection(0, adapter, market, url, "", (one,), Route(), None, "")
    session = Session.__new__(Session)
    session.connection = 3
    side.up(planned, session)
    side.down(planned, session, PeerClosed(url, 1006, "gone"))
    side.refused(planned, planned.streams, "no such symbol")
    side.silent(planned, one, 61.25)
    side.spoke_again(planned, one)
    side.unacknowledged(planned, planned.streams)
    records = check(STATUS, kept.records[STATUS])
    assert len({record["event"] for record in records}) == 6
    check(STATUS, [void("md.trades.v1", 0, SESSION, 5, 2, "refused")])
