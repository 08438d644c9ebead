"""ingestor.admin.streams: which of many streams a page shows."""

from __future__ import annotations

import pytest

from ingestor.admin.exposition import StreamState
from ingestor.admin.streams import LIMIT_MAX, StreamPage, StreamQuery, joined, page_of

NOW_NS = 1_800_000_000_000_000_000
SECOND_NS = 1_000_000_000


def stream(number: int, *, silence_s: int = 0, lag_s: float = 0.0, gaps: int = 0) -> StreamState:
    last_ns = NOW_NS - silence_s * SECOND_NS if silence_s >= 0 else 0
    return StreamState(
        "okx", "spot", "trades", f"S{number}-USDT", True, number, last_ns, lag_s, gaps
    )


def symbols(page: StreamPage) -> list[str]:
    return [state.symbol for state in page.streams]


async def test_the_most_silent_come_first_and_those_that_never_spoke_before_them() -> None:
    streams = [stream(1, silence_s=5), stream(2, silence_s=-1), stream(3, silence_s=50)]
    page = await page_of(streams, StreamQuery())
    assert symbols(page) == ["S2-USDT", "S3-USDT", "S1-USDT"]
    assert [row["silence_s"] for row in page.to_json(NOW_NS)["streams"]] == [None, 50.0, 5.0]


@pytest.mark.parametrize("order", ["lag", "gaps", "messages"])
async def test_the_worst_come_first(order: str) -> None:
    streams = [stream(number, lag_s=number / 10, gaps=number) for number in (4, 9, 2)]
    page = await page_of(streams, StreamQuery(order=order))
    assert symbols(page) == ["S9-USDT", "S4-USDT", "S2-USDT"]


@pytest.mark.parametrize(
    ("text", "found"), [("s12-", 1), ("OKX spot", 300), ("trades s29", 11), ("kraken", 0)]
)
async def test_a_search_is_over_all_streams(text: str, found: int) -> None:
    query = StreamQuery.from_parameters({"text": text, "limit": "5"})
    page = await page_of((stream(number) for number in range(300)), query)
    assert (page.total, page.matching, len(page.streams)) == (300, found, min(found, 5))


@pytest.mark.parametrize(
    ("parameters", "refusal"),
    [
        ({"order": "name"}, "order must be one of silence, lag, gaps, messages"),
        ({"limit": "0"}, f"limit must be a number from 1 to {LIMIT_MAX}"),
        ({"limit": "101"}, f"limit must be a number from 1 to {LIMIT_MAX}"),
        ({"limit": "-1"}, f"limit must be a number from 1 to {LIMIT_MAX}"),
        ({"limit": "٣"}, f"limit must be a number from 1 to {LIMIT_MAX}"),
        ({"text": "x" * 101}, "text must have at most 100 characters"),
    ],
)
def test_a_bad_query_is_refused_with_what_is_valid(
    parameters: dict[str, str], refusal: str
) -> None:
    with pytest.raises(ValueError, match=refusal):
        StreamQuery.from_parameters(parameters)


async def test_pages_of_workers_are_one_page() -> None:
    query = StreamQuery(order="gaps", limit=2)
    pages = [
        await page_of([stream(number, gaps=number) for number in numbers], query)
        for numbers in ((1, 5, 9), (2, 7))
    ]
    sent = [StreamPage.from_json(page.to_json(NOW_NS)) for page in pages]
    whole = joined(sent, query)
    assert (whole.total, whole.matching, symbols(whole)) == (5, 5, ["S9-USDT", "S7-USDT"])
    assert StreamQuery.from_parameters(query.to_parameters()) == query
