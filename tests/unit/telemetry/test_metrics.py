"""Histograms, skew and counters: what is put in comes out, by feed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.instruments import Instrument, InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import LEVEL, TRADE, Cause, Flag, Kind, Rows
from ingestor.telemetry.histogram import EDGES_NS, EXPORTED, Histogram
from ingestor.telemetry.metrics import Metrics
from ingestor.telemetry.row_lags import Stage

SECOND = 1_000_000_000


def some_instruments() -> list[Instrument]:
    return [
        instrument(venue, "spot", name, f"{name}-USD", name, "USD", "0.01", "0.01")
        for venue in ("acme", "zeta")
        for name in ("A", "B")
    ]


@pytest.fixture
def table() -> InstrumentTable:
    return InstrumentTable(some_instruments())


def trades(*rows: tuple[int, int, int], flags: int = int(Flag.LAST)) -> Rows:
    """rows: (instrument, ts_event, ts_recv)."""
    made = np.zeros(len(rows), TRADE)
    for index, (number, ts_event, ts_recv) in enumerate(rows):
        made[index]["instrument"] = number
        made[index]["ts_event"] = ts_event
        made[index]["ts_recv"] = ts_recv
    made["kind"] = Kind.TRADE
    made["flags"] = flags
    return made


def test_exported_edges_double_from_100_microseconds() -> None:
    exported = EDGES_NS[EXPORTED]
    assert 100_000 in exported
    assert np.allclose(exported[1:] / exported[:-1], 2)


@given(st.lists(st.integers(-SECOND, 10_000 * SECOND), min_size=1, max_size=200))
def test_every_value_lands_in_one_bin_of_its_feed(values: list[int]) -> None:
    histogram = Histogram()
    histogram.grow(3)
    histogram.add(np.full(len(values), 1), np.array(values))
    assert histogram.counts.sum(axis=1).tolist() == [0, len(values), 0]
    assert math.isclose(histogram.sums_ns[1], sum(max(value, 0) for value in values), abs_tol=1)
    for value in values:
        bin_index = int(np.searchsorted(EDGES_NS, value))
        assert histogram.counts[1, bin_index] > 0


@given(st.lists(st.integers(50_000, SECOND), min_size=20, max_size=500), st.floats(0.05, 0.99))
def test_percentiles_are_within_one_bin(values: list[int], fraction: float) -> None:
    histogram = Histogram()
    histogram.grow(1)
    histogram.add(np.zeros(len(values), np.intp), np.array(values))
    exact = sorted(values)[min(max(math.ceil(fraction * len(values)) - 1, 0), len(values) - 1)]
    assert exact / 1.2 <= histogram.percentile_ns(fraction) <= exact * 1.2


def test_the_percentile_of_nothing_is_none() -> None:
    histogram = Histogram()
    histogram.grow(1)
    assert math.isnan(histogram.percentile_ns(0.99))


@pytest.mark.rows("D3")
def test_lags_are_corrected_for_the_clocks_and_never_clamped(table: InstrumentTable) -> None:
    metrics = Metrics(table)
    # The venue's clock is 5 s ahead: every raw lag is negative.
    rows = trades((0, 105 * SECOND, 100 * SECOND), (0, 106 * SECOND, 101 * SECOND + 20_000_000))
    metrics.sealed(RowClass.TRADE, rows, 102 * SECOND)
    assert metrics.skew.known(0) == -5 * SECOND
    assert metrics.lag[Stage.VENUE].sums_ns[0] == 20_000_000
    assert metrics.lag[Stage.SEAL].sums_ns[0] == 2 * SECOND + (SECOND - 20_000_000)
    metrics.acked(RowClass.TRADE, rows, 103 * SECOND, 102 * SECOND)
    assert metrics.lag[Stage.PUBLISH].sums_ns[0] == 2 * SECOND
    assert metrics.lag[Stage.PUBLISH].counts.sum() == 2
    assert metrics.lag[Stage.TOTAL].counts.sum() == 2
    assert metrics.counter("acked")[0] == 2


def test_rows_without_venue_time_and_marks_have_no_venue_lag(table: InstrumentTable) -> None:
    metrics = Metrics(table)
    untimed = trades((0, 100, 100), flags=int(Flag.NO_VENUE_TIME))
    resent = trades((0, 1, 100), flags=int(Flag.SNAPSHOT))
    gap = control_row(RowClass.TRADE, Kind.GAP, 0, 100, cause=Cause.SEQUENCE)
    metrics.sealed(RowClass.TRADE, np.concatenate([untimed, resent, gap]), 200)
    assert metrics.lag[Stage.VENUE].counts.sum() == 0
    assert metrics.lag[Stage.SEAL].counts.sum() == 2


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
def test_each_may_be_the_first_to_meet_an_instrument(
    table: InstrumentTable, row_class: RowClass
) -> None:
    rows = trades((3, 1, 2))
    metrics = Metrics(table)
    metrics.acked(row_class, rows, 4, 3)
    assert metrics.total("acked") == 1
    metrics = Metrics(table)
    metrics.sealed(RowClass.TRADE, rows, 3)
    assert metrics.lag[Stage.SEAL].counts.sum() == 1
    metrics = Metrics(table)
    metrics.count("gaps", row_class, 3)
    assert metrics.total("gaps") == 1


def test_unsettled_is_what_the_sink_still_owes(table: InstrumentTable) -> None:
    metrics = Metrics(table)
    rows = trades((0, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1))
    metrics.count_rows(("decoded", "published"), RowClass.TRADE, rows["instrument"])
    metrics.declared(RowClass.TRADE, rows[:1])
    assert metrics.unsettled == 5
    metrics.acked(RowClass.TRADE, rows[:2], 5, 4)
    metrics.shed(RowClass.TRADE, rows[2:3])
    metrics.conflated(RowClass.QUOTE, rows[3:])
    metrics.dead_lettered(RowClass.TRADE, rows[:1])
    assert metrics.unsettled == 0


def test_the_lag_of_a_book_event_counts_once_however_many_levels_it_has(
    table: InstrumentTable,
) -> None:
    metrics = Metrics(table)
    rows = np.zeros(5, LEVEL)
    rows["kind"] = Kind.LEVEL
    rows["ts_event"], rows["ts_recv"] = 90, 100
    rows["flags"][[2, 4]] = Flag.LAST  # two events: of three levels and of two
    metrics.sealed(RowClass.LEVEL, rows, 150)
    metrics.acked(RowClass.LEVEL, rows, 200, 150)
    assert [int(metrics.lag[stage].counts.sum()) for stage in Stage] == [2, 2, 2, 2]
    assert metrics.total("acked") == 5
    assert metrics.last_seen.of(RowClass.LEVEL, 0) == (2, 100, 10)


BATCHES = st.lists(
    st.tuples(
        st.sampled_from([TRADE, LEVEL]), st.lists(st.integers(0, 3), min_size=1), st.booleans()
    ),
    min_size=1,
    max_size=12,
)


@given(batches=BATCHES)
def test_batches_counted_together_are_counted_as_one_by_one(
    batches: list[tuple[np.dtype[np.void], list[int], bool]],
) -> None:
    one_by_one, together = (Metrics(InstrumentTable(some_instruments())) for _ in range(2))
    for turn, (dtype, numbers, is_marked) in enumerate(batches):
        row_class = RowClass.TRADE if dtype is TRADE else RowClass.LEVEL
        rows = np.zeros(len(numbers), dtype)
        rows["instrument"] = numbers
        rows["kind"] = row_class.id
        rows["kind"][-1] = Kind.GAP if is_marked else row_class.id
        rows["flags"] = np.arange(len(rows)) % 4
        rows["ts_recv"] = SECOND + turn * 1_000 + np.arange(len(rows))
        rows["ts_event"] = rows["ts_recv"] - 100  # one skew, however many rows are looked at
        now_ns = SECOND + turn * 2_000
        for metrics in (one_by_one, together):
            metrics.count_rows(("decoded", "published"), row_class, rows["instrument"])
            metrics.sealed(row_class, rows, now_ns)
            metrics.acked(row_class, rows, now_ns + 10, now_ns - turn)
            if turn % 3 == 0:
                metrics.count_rows("published", row_class, rows["instrument"][:1], sign=-1)
        one_by_one.settle()
    for name in Metrics.COUNTERS:
        assert one_by_one.counter(name).tolist() == together.counter(name).tolist()
    for stage in Stage:
        assert one_by_one.lag[stage].counts.tolist() == together.lag[stage].counts.tolist()
        assert one_by_one.lag[stage].sums_ns.tolist() == together.lag[stage].sums_ns.tolist()
    assert one_by_one.last_recv_ns.tolist() == together.last_recv_ns.tolist()
    for row_class in ROW_CLASSES:
        for number in range(4):
            assert one_by_one.last_seen.of(row_class, number) == together.last_seen.of(
                row_class, number
            )


def test_batches_wait_for_a_second_or_for_many_rows_at_most(table: InstrumentTable) -> None:
    metrics = Metrics(table)
    counts = metrics.lag[Stage.SEAL]
    rows = trades((0, 1, 1))
    metrics.sealed(RowClass.TRADE, rows, 5 * SECOND)
    assert counts.counts.sum() == 1  # a second has passed since the start
    metrics.sealed(RowClass.TRADE, rows, 6 * SECOND - 1)
    assert counts.counts.sum() == 1
    metrics.sealed(RowClass.TRADE, rows, 6 * SECOND)
    assert counts.counts.sum() == 3
    metrics.sealed(RowClass.TRADE, np.repeat(rows, 20_000), 6 * SECOND)
    assert counts.counts.sum() == 20_003


def test_who_keeps_last_seen_reads_what_waited(table: InstrumentTable) -> None:
    metrics = Metrics(table)
    last = metrics.last_seen
    metrics.sealed(RowClass.TRADE, trades((1, 1, 2)), 5 * SECOND)
    metrics.sealed(RowClass.TRADE, trades((1, 3, 4)), 5 * SECOND)
    assert last.times(RowClass.TRADE)[1] == 4
    metrics.sealed(RowClass.TRADE, trades((1, 5, 9)), 5 * SECOND)
    assert last.of(RowClass.TRADE, 1) == (3, 9, 4)
