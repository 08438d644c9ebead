"""Rows that were shed are found again, exactly, whatever was shed and whatever came back before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingestor.consumer import in_place
from ingestor.history.shed_rows import MissingRows, PublishedRows, ShedRange, contents
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import Cause, Flag, Kind, Rows
from ingestor.sinks.kafka.overload import shed
from tests.fakes.rows import START_NS, table_of, trades

TABLE = table_of(2)
STREAMS = [(RowClass.TRADE, TABLE[number].key) for number in range(2)]
Parts = list[tuple[list[int], bool]]  # times between trades, and whether these were shed

parts = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.booleans()),
    min_size=1,
    max_size=6,
)


def recorded_of(some: Parts) -> Rows:
    """Trades of two instruments in turn; several have the time of the one before."""
    steps = [step for times, _ in some for step in times]
    rows = trades(len(steps) + 2, instruments=2)
    rows["ts_recv"] = rows["ts_event"] = START_NS + np.cumsum([*steps, 1, 1])
    rows["sequence"] = rows["trade_id_low"] = 0  # nothing but its content tells a row
    return rows


def topic_of(some: Parts, recorded: Rows) -> Rows:
    """What is published of these: GAPs where parts were shed; the last two rows always come."""
    pieces, at = [], 0
    for times, is_shed in some:
        piece, at = recorded[at : at + len(times)], at + len(times)
        pieces.append(shed(RowClass.TRADE, piece, np.array([0, 1]))[0] if is_shed else piece)
    return np.concatenate([*pieces, recorded[at:]])


def ranges_in(*records: tuple[str, Rows]) -> list[tuple[int, list[ShedRange]]]:
    """The open ranges of the session "s" by number of instrument."""
    published = PublishedRows()
    for session, rows in records:
        batch = TickBatch(RowClass.TRADE, rows, TABLE)
        published.take(session, 0, batch, is_recorded=session == "s")
    found = published.ranges().get("s", {})
    return [(STREAMS.index(stream), ranges) for stream, ranges in found.items()]


def refill(topic: Rows, recorded: Rows, *, earlier: Rows | None = None, most: int = 1_000) -> Rows:
    """What a refill publishes, its closing marks last; it is broken off after `most` rows."""
    records = [("s", topic), *([("r", earlier)] if earlier is not None else [])]
    filled = [topic[:0]]
    for number, ranges in ranges_in(*records):
        missing = MissingRows(ranges)
        filled.append(missing.choose(recorded[recorded["instrument"] == number])[:most])
        if most >= len(recorded):
            last_ns = int(recorded["ts_recv"][-1])
            marks = missing.filled(START_NS, last_ns)
            for mark in marks:
                mark["instrument"] = number
            filled += marks
    return np.concatenate(filled)


@given(parts, st.integers(0, 4))
def test_a_reader_gets_every_row_once_and_no_gap(some: Parts, most: int) -> None:
    recorded = recorded_of(some)
    topic = topic_of(some, recorded)
    broken_off = refill(topic, recorded, most=most)
    rest = refill(topic, recorded, earlier=broken_off)
    read = in_place(np.concatenate([topic, broken_off, rest]))
    for number in range(2):
        mine, wanted = (rows[rows["instrument"] == number] for rows in (read, recorded))
        assert sorted(contents(mine)) == sorted(contents(wanted))
        assert (np.diff(mine["ts_recv"]) >= 0).all()
    whole = np.concatenate([broken_off, rest])
    assert len(refill(topic, recorded, earlier=whole)) == 0


def test_what_the_recording_lost_leaves_the_gap_open() -> None:
    some: Parts = [([1] * 4, False), ([1] * 4, True)]
    recorded = recorded_of(some)
    topic = topic_of(some, recorded)
    lost = control_row(RowClass.TRADE, Kind.GAP, 0, int(recorded["ts_recv"][5]), cause=Cause.SHED)
    holed = np.concatenate([recorded[:6], lost, recorded[6:]])
    filled = refill(topic, holed)
    assert filled["kind"].tolist() == [Kind.TRADE] * 4 + [Kind.GAP]  # of the other instrument
    assert (filled["flags"] & Flag.BACKFILL).all()


def test_without_a_later_row_the_end_is_not_known() -> None:
    some: Parts = [([1] * 4, False), ([1] * 4, True)]
    recorded = recorded_of(some)
    topic = topic_of(some, recorded)[:-2]
    filled = refill(topic, recorded)
    assert not (filled["kind"] == Kind.GAP).any()
