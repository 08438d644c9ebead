"""ingestor.cluster.dealing: streams stay where they are, new ones fill the emptiest worker."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ingestor.cluster.dealing import Stream, deal


def stream(symbol: int, channel: str) -> Stream:
    return "okx", "spot", f"S{symbol}", channel


streams = st.sets(
    st.builds(stream, st.integers(0, 12), st.sampled_from(["trades", "quotes", "book"]))
)


@given(streams, streams, st.integers(1, 4))
def test_each_stream_has_one_worker_and_none_moves(
    before: set[Stream], after: set[Stream], workers: int
) -> None:
    carried = deal(sorted(before), [()] * workers)
    dealt = deal(sorted(after), carried)
    assert Counter(one for part in dealt for one in part) == Counter(after)
    for old, new in zip(carried, dealt, strict=True):
        assert {*old} & after == {*old} & {*new}


def test_new_instruments_fill_the_emptiest() -> None:
    carried = [[stream(one, "trades") for one in range(4)], []]
    wanted = [*carried[0], *(stream(one, "trades") for one in range(10, 14))]
    assert [len(part) for part in deal(wanted, carried)] == [4, 4]
