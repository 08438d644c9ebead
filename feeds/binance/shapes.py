"""The texts of frequent frames: spot's as they come alone, futures' wrapped by combined streams.

Recordings have spot's wrapped too. Every other frame goes to the adapter's `decode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ingestor.adapter import CompiledShape, Flag, RowClass, level_pairs, shape

_UNTIMED: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)
_NUMBERS: Final = '"p":"<price:price>","q":"<size:size>"'
_BEST: Final = (
    '"b":"<price:bid_price>","B":"<size:bid_size>","a":"<price:ask_price>","A":"<size:ask_size>"'
)
_SIDES: Final = f'"b":{level_pairs("bids")},"a":{level_pairs("asks")}'
_MAKER: Final = '"m":<side:true=2|false=1>'  # the buyer was the maker: the seller is the aggressor
_AGGREGATE: Final = f'{_NUMBERS},"f":<n>,"l":<n>,"T":<ms:ts_event>,{_MAKER}'
_ID: Final = "<int:sequence,trade_id_low>"
_RANGE: Final = '"U":<int:first>=1>,"u":<int:last>=1>'

_SPOT_TRADE: Final = (
    f'{{"e":"trade","E":<n>,"s":"<symbol>","t":{_ID},{_NUMBERS},'
    f'"T":<ms:ts_event>,{_MAKER},"M":true}}'
)
_SPOT_QUOTE: Final = f'{{"u":<int:sequence>,"s":"<symbol>",{_BEST}}}'
_SPOT_BOOK: Final = f'{{"e":"depthUpdate","E":<ms:ts_event>,"s":"<symbol>",{_RANGE},{_SIDES}}}'


def _wrapped(stream: str, event: str) -> str:
    return f'{{"stream":"<word>@{stream}","data":{event}}}'


def _spot() -> Iterator[CompiledShape]:
    yield shape(RowClass.TRADE, _SPOT_TRADE)
    yield shape(RowClass.QUOTE, _SPOT_QUOTE, flags=_UNTIMED)
    yield shape(RowClass.LEVEL, _SPOT_BOOK)
    yield shape(RowClass.TRADE, _wrapped("trade", _SPOT_TRADE))
    yield shape(RowClass.QUOTE, _wrapped("bookTicker", _SPOT_QUOTE), flags=_UNTIMED)
    yield shape(RowClass.LEVEL, _wrapped("depth@100ms", _SPOT_BOOK))


def _futures(pair: str, quantity: str) -> Iterator[CompiledShape]:
    """pair: the member that only COIN-M has. quantity: the last one of a trade in USD-M."""
    name = f'"s":"<symbol>"{pair}'
    trade = f'{{"e":"aggTrade","E":<n>,"a":{_ID},"s":"<symbol>",{_AGGREGATE}'
    ticker = f'"u":<int:sequence>,{name},{_BEST},"T":<ms:ts_event>,"E":<n>}}'
    times = '"E":<n>,"T":<ms:ts_event>'
    book = f'{{"e":"depthUpdate",{times},{name},{_RANGE},"pu":<int:previous>,{_SIDES}}}'
    yield shape(RowClass.TRADE, _wrapped("aggTrade", f"{trade}{quantity}}}"))
    if quantity:  # as it was before 2026
        yield shape(RowClass.TRADE, _wrapped("aggTrade", f"{trade}}}"))
    yield shape(RowClass.QUOTE, _wrapped("bookTicker", f'{{"e":"bookTicker",{ticker}'))
    yield shape(RowClass.LEVEL, _wrapped("depth@100ms", book))
    yield shape(RowClass.LEVEL, _wrapped("depth@0ms", book))


_SHAPES: Final = {
    "spot": tuple(_spot()),
    "usdm": tuple(_futures("", ',"nq":"<same:size>"')),
    "coinm": tuple(_futures(',"ps":"<text>"', "")),
}


def shapes(market: str) -> Sequence[CompiledShape]:
    """Return the shapes of a market's frames, the most frequent first."""
    return _SHAPES[market]
