"""Find the worst streams, or those of a name, among any number of them.

A page shows a hundred rows at most, however many streams there are: the server filters and sorts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ingestor.admin.exposition import Slices, StreamState

LIMIT_MAX: Final = 100
TEXT_MAX: Final = 100  # characters of a search
_SECOND_NS: Final = 1_000_000_000
_STREAMS_A_SLICE: Final = 500
# Streams that never spoke come first by silence.
_ORDERS: Final[Mapping[str, Callable[[StreamState], float]]] = {
    "silence": lambda stream: -stream.last_message_ns,
    "lag": lambda stream: stream.lag_s,
    "gaps": lambda stream: stream.gaps,
    "messages": lambda stream: stream.messages,
}
ORDERS: Final = tuple(_ORDERS)


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """Say which streams to show. text: part of venue, market, channel or symbol; "" = all."""

    text: str = ""
    order: str = "silence"
    limit: int = 50

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> StreamQuery:
        """Return the query of a request. Raises ValueError with the valid values."""
        order = parameters.get("order", "silence")
        if order not in _ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}")
        limit = parameters.get("limit", "50")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= LIMIT_MAX:
            raise ValueError(f"limit must be a number from 1 to {LIMIT_MAX}")
        text = parameters.get("text", "").strip().casefold()
        if len(text) > TEXT_MAX:
            raise ValueError(f"text must have at most {TEXT_MAX} characters")
        return cls(text, order, int(limit))

    def to_parameters(self) -> dict[str, str]:
        """Return the parameters of a request for this."""
        return {"text": self.text, "order": self.order, "limit": str(self.limit)}


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Hold the answer to a query. total, matching: of all streams and of those with the text."""

    total: int
    matching: int
    streams: list[StreamState]

    def to_json(self, now_ns: int) -> dict[str, Any]:
        """Return the page as JSON types. now_ns: ns since the epoch."""
        return {
            "total": self.total,
            "matching": self.matching,
            "streams": [_row(stream, now_ns) for stream in self.streams],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StreamPage:
        """Return what `to_json` was made of. Raises KeyError, TypeError."""
        streams = [
            StreamState(
                stream["venue"],
                stream["market"],
                stream["channel"],
                stream["symbol"],
                is_up=stream["is_up"],
                messages=stream["messages"],
                last_message_ns=stream["last_message_ns"],
                lag_s=stream["lag_s"],
                gaps=stream["gaps"],
            )
            for stream in content["streams"]
        ]
        return cls(content["total"], content["matching"], streams)


async def page_of(streams: Iterable[StreamState], query: StreamQuery) -> StreamPage:
    """Return the worst streams that match, worst first, in slices of a few milliseconds."""
    slices = Slices()
    matching: list[StreamState] = []
    total = 0
    for total, stream in enumerate(streams, start=1):
        if not query.text or query.text in _text_of(stream):
            matching.append(stream)
        if total % _STREAMS_A_SLICE == 0:
            await slices.breathe()
    worst = heapq.nlargest(query.limit, matching, key=_ORDERS[query.order])
    return StreamPage(total, len(matching), worst)


def joined(pages: Iterable[StreamPage], query: StreamQuery) -> StreamPage:
    """Return the pages of several processes as one."""
    every = list(pages)
    streams = [stream for page in every for stream in page.streams]
    return StreamPage(
        sum(page.total for page in every),
        sum(page.matching for page in every),
        heapq.nlargest(query.limit, streams, key=_ORDERS[query.order]),
    )


def _text_of(stream: StreamState) -> str:
    return f"{stream.venue} {stream.market} {stream.channel} {stream.symbol}".casefold()


def _row(stream: StreamState, now_ns: int) -> dict[str, Any]:
    last_ns = stream.last_message_ns
    return {
        "venue": stream.venue,
        "market": stream.market,
        "channel": stream.channel,
        "symbol": stream.symbol,
        "is_up": stream.is_up,
        "messages": stream.messages,
        "last_message_ns": last_ns,
        "silence_s": max(0, now_ns - last_ns) / _SECOND_NS if last_ns else None,
        "lag_s": stream.lag_s,
        "gaps": stream.gaps,
    }
