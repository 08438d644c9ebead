from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import TRADE, Cause, Flag, Kind, Rows
from ingestor.sinks.digest import Digest, combined

SYMBOLS = ("AAA", "BBB", "CCC")


def table(symbols: tuple[str, ...] = SYMBOLS) -> InstrumentTable:
    return InstrumentTable(
        instrument("venue", "spot", one, f"{one}-USD", one, "USD", "0.01", "1") for one in symbols
    )


def trades(count: int, seed: int = 1) -> Rows:
    random = np.random.default_rng(seed)
    rows = np.zeros(count, TRADE)
    rows["ts_recv"] = np.arange(count)
    rows["ts_event"] = rows["ts_recv"] - 5
    rows["instrument"] = random.integers(0, len(SYMBOLS), count)
    rows["price"] = random.integers(1, 1_000, count)
    rows["kind"] = Kind.TRADE
    return rows


def digest_of(rows: Rows, cuts: list[int], names: tuple[str, ...] = SYMBOLS) -> str:
    digest = Digest()
    for part in np.split(rows, cuts):
        digest.add(TickBatch(RowClass.TRADE, part, table(names)))
    return digest.hexdigest()


@given(st.lists(st.integers(0, 200), max_size=6).map(sorted))
def test_batches_do_not_matter(cuts: list[int]) -> None:
    rows = trades(200)
    assert digest_of(rows, cuts) == digest_of(rows, [])


def test_numbers_of_instruments_do_not_matter_but_keys_do() -> None:
    rows = trades(50)
    swapped = rows.copy()
    swapped["instrument"] = 2 - rows["instrument"]
    assert digest_of(swapped, [], SYMBOLS[::-1]) == digest_of(rows, [])
    assert digest_of(swapped, []) != digest_of(rows, [])


def test_order_within_an_instrument_and_every_field_matter() -> None:
    rows = trades(50)
    rows["instrument"] = 0
    assert digest_of(rows[::-1], []) != digest_of(rows, [])
    for name in TRADE.names or ():
        if name == "instrument":
            continue
        changed = rows.copy()
        changed[name][7] += 1
        assert digest_of(changed, []) != digest_of(rows, []), name


def test_order_between_instruments_does_not_matter() -> None:
    rows = trades(90)
    by_instrument = rows[np.argsort(rows["instrument"], kind="stable")]
    assert digest_of(by_instrument, []) == digest_of(rows, [])


def test_workers_add_up() -> None:
    rows = trades(90)
    parts = [digest_of(rows[rows["instrument"] == number], []) for number in range(3)]
    assert combined(parts) == digest_of(rows, [])


def test_receive_times_can_be_left_out() -> None:
    def digest(rows: Rows, *, receive_times: bool) -> str:
        one = Digest(receive_times=receive_times)
        one.add(TickBatch(RowClass.TRADE, rows, table()))
        return one.hexdigest()

    rows = trades(30)
    rows["flags"][::2] = Flag.NO_VENUE_TIME
    later = rows.copy()
    later["ts_recv"] += 1_000
    later["ts_event"][::2] += 1_000
    assert digest(rows, receive_times=False) == digest(later, receive_times=False)
    assert digest(rows, receive_times=True) != digest(later, receive_times=True)
    later["ts_event"][1] += 1
    assert digest(rows, receive_times=False) != digest(later, receive_times=False)
    assert rows["ts_recv"][-1] == 29  # the batch itself is not written to


@given(st.lists(st.integers(0, 6), max_size=4).map(sorted))
def test_a_repeated_gap_counts_once(cuts: list[int]) -> None:
    def gap(cause: Cause) -> Rows:
        return control_row(RowClass.TRADE, Kind.GAP, 0, 7, cause=cause)

    row = trades(1)
    row["instrument"] = 0
    once = np.concatenate([row, gap(Cause.REJECTED), row, gap(Cause.SHED), row])
    rejected, shed = gap(Cause.REJECTED), gap(Cause.SHED)
    twice = np.concatenate([row, rejected, rejected, row, shed, row])
    assert digest_of(twice, cuts) == digest_of(once, [])
    other = np.concatenate([row, rejected, shed, row, shed, row])
    assert digest_of(other, cuts) != digest_of(once, [])
