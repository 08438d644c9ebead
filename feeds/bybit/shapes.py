"""The texts of frequent frames: trades and book deltas.

A delta with `u` = 1 is a fresh image of the book, a block trade has `BT`: both go to the adapter's
`decode`, as do quotes, whose meaning depends on the ones before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ingestor.adapter import CompiledShape, RowClass, level_pairs, shape

from .decoder import DEPTH

_IDS: Final = {"spot": "<int:trade_id_low>"}  # elsewhere a UUID
_BOOK: Final = (
    f'{{"topic":"orderbook.{DEPTH}.<text>","type":"delta","ts":<n>,"data":{{"s":"<symbol>",'
    f'"b":{level_pairs("bids")},"a":{level_pairs("asks")},"u":<int:first,last>=2>,'
    '"seq":<low:check_value>},"cts":<ms:ts_event>}'
)


def _trades(identifier: str, more: str) -> CompiledShape:
    return shape(
        RowClass.TRADE,
        '{"topic":"publicTrade.<text>","type":"snapshot","ts":<n>,"data":<[>{"T":<ms:ts_event>,'
        '"s":"<symbol>","S":"<side:Buy=1|Sell=2>","v":"<size:size>","p":"<price:price>",'
        f'"L":"<text>","i":"{identifier}","BT":false{more}}}<row><]>}}',
    )


def _shapes(market: str) -> Iterator[CompiledShape]:
    identifier = _IDS.get(market, "<uuid>")
    yield _trades(identifier, ',"RPI":false,"seq":<int:sequence>')
    yield shape(RowClass.LEVEL, _BOOK)
    yield _trades(identifier, ',"seq":<int:sequence>')
    yield _trades(identifier, "")


_SHAPES: Final = {market: tuple(_shapes(market)) for market in ("spot", "linear", "inverse")}


def shapes(market: str) -> Sequence[CompiledShape]:
    """Return the shapes of a market's frames, the most frequent first."""
    return _SHAPES[market]
