"""Rows of several partitions come in order of `ts_recv`; nobody waits for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.consumer.joining import Chunk
from ingestor.consumer.merge import Merge, Supply, Taken
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from tests.fakes.rows import MAKERS, table_of

TABLE = table_of()
WINDOW_S, STALL_S = 1.0, 30.0


def chunk(times: list[int], row_class: RowClass = RowClass.TRADE, *, offset: int = 0) -> Chunk:
    """One record for each row."""
    rows = MAKERS[row_class](len(times))
    rows["ts_recv"] = times
    ends = np.arange(1, len(times) + 1)
    return Chunk(TickBatch(row_class, rows, TABLE), ends, ends + offset)


def merge_of(**supplies: Supply) -> Merge[str]:
    merge = Merge[str](WINDOW_S, STALL_S)
    for source, supply in supplies.items():
        merge.expect(source, supply)
    return merge


def times_of(taken: Taken[str] | None) -> list[int]:
    return [] if taken is None else [t for one in taken for t in one.rows["ts_recv"].tolist()]


def test_a_partition_with_more_to_read_holds_the_others_back() -> None:
    merge = merge_of(a=Supply.BEHIND, b=Supply.BEHIND)
    merge.add("a", chunk([1, 5, 9]), 0.0)
    assert times_of(merge.take(WINDOW_S * 2)) == []
    merge.add("b", chunk([2, 6]), 3.0)
    assert times_of(merge.take(3.0)) == [1, 2, 5, 6]
    assert times_of(merge.take(STALL_S - 1)) == []
    assert merge.rows("a") == 1
    assert times_of(merge.take(STALL_S + 1)) == [9]


def test_a_quiet_partition_holds_the_others_back_for_the_window() -> None:
    merge = merge_of(a=Supply.QUIET, b=Supply.QUIET)
    assert merge.wait_s(0.0) is None
    merge.add("a", chunk([1]), 0.0)
    merge.add("a", chunk([7]), 0.6)
    assert merge.wait_s(0.6) == pytest.approx(0.4)
    assert times_of(merge.take(0.9)) == []
    assert times_of(merge.take(1.0)) == [1]
    assert times_of(merge.take(1.6)) == [7]
    assert merge.late_rows == 0
    merge.add("b", chunk([6, 8]), 1.7)
    assert merge.late_rows == 1
    assert times_of(merge.take(1.7)) == [6]


def test_a_partition_at_its_end_holds_nobody_back() -> None:
    merge = merge_of(a=Supply.BEHIND, b=Supply.ENDED)
    merge.add("a", chunk([1, 2]), 0.0)
    assert times_of(merge.take(0.0)) == [1, 2]
    merge.drop("a")
    merge.add("b", chunk([3]), 0.0)
    assert times_of(merge.take(0.0)) == [3]


def test_one_batch_for_each_run_of_a_class_and_offsets_as_far_as_handed_out() -> None:
    merge = merge_of(t=Supply.ENDED, u=Supply.ENDED, q=Supply.ENDED)
    merge.add("t", chunk([1, 2, 6], offset=100), 0.0)
    merge.add("u", chunk([3, 9], offset=200), 0.0)
    merge.add("q", chunk([4, 5, 7], RowClass.QUOTE, offset=300), 0.0)
    taken = merge.take(0.0)
    assert taken is not None
    seen = []
    for batch in taken:
        seen.append((batch.row_class.channel, batch.rows["ts_recv"].tolist(), taken.next_offsets()))
    assert seen == [
        ("trades", [1, 2, 3], {"t": 102, "u": 201}),
        ("quotes", [4, 5], {"t": 102, "u": 201, "q": 302}),
        ("trades", [6], {"t": 103, "u": 201, "q": 302}),
        ("quotes", [7], {"t": 103, "u": 201, "q": 303}),
        ("trades", [9], {"t": 103, "u": 202, "q": 303}),
    ]
    taken.forget("t")
    assert taken.next_offsets() == {"u": 202, "q": 303}
    assert taken.sources == {"t", "u", "q"}


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.lists(st.integers(0, 50), min_size=1, max_size=6),
        st.sampled_from([0.0, 0.25, 0.5]),
        st.sampled_from([RowClass.TRADE, RowClass.QUOTE]),
    ),
    max_size=20,
)


@given(steps)
def test_every_row_once_in_order_but_for_late_ones(
    steps: list[tuple[str, list[int], float, RowClass]],
) -> None:
    merge = merge_of(a=Supply.QUIET, b=Supply.QUIET, c=Supply.QUIET)
    given: list[int] = []
    expected: dict[RowClass, list[int]] = {RowClass.TRADE: [], RowClass.QUOTE: []}
    found: dict[RowClass, list[int]] = {RowClass.TRADE: [], RowClass.QUOTE: []}
    now_s, last, late = 0.0, {"a": 0, "b": 0, "c": 0}, 0

    def take() -> None:
        taken = merge.take(now_s)
        for batch in taken or ():
            given.extend(batch.rows["ts_recv"].tolist())
            found[batch.row_class] += batch.rows["ts_recv"].tolist()

    for source, ahead, step_s, row_class in steps:
        times = (last[source] + np.cumsum(ahead)).tolist()
        last[source] = times[-1]
        late += sum(one < max(given, default=0) for one in times)
        merge.add(source, chunk(times, row_class), now_s)
        expected[row_class] += times
        now_s += step_s
        take()
    now_s += WINDOW_S
    take()
    assert merge.late_rows == late
    assert {name: sorted(rows) for name, rows in found.items()} == {
        name: sorted(rows) for name, rows in expected.items()
    }
    backward = sum(one < max(given[:n], default=0) for n, one in enumerate(given))
    assert backward == late
