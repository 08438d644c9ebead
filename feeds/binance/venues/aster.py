"""Aster, spot and USD-M perpetuals: Binance's streams as they were before they were split.

Reference: Aster "Spot API" and "Futures API" (WebSocket Market Streams, Exchange Information,
Order Book), read 2026-11-30.
Units and traps: as `feeds/binance/adapter.py` has them. Besides:
- One address carries all streams of a market, each wrapped with its name.
- Book deltas of spot have `pu` too: the chain of futures holds in both markets.
- Quotes of spot have no event and no time.
- Of raw trades, `X` says what they were, as in Binance's futures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import msgspec

from ingestor.adapter import (
    CompiledShape,
    Endpoint,
    FeedAdapter,
    Instrument,
    LostTrades,
    Market,
    RestLimit,
    RestRequest,
    RowClass,
    TradeNumbers,
    shape,
)

from ..adapter import FUTURES_PARSERS, SPOT_PARSERS, Binance, Parsers
from ..events import Trade

_SPOT_TRADE: Final = shape(
    RowClass.TRADE,
    '{"stream":"<word>@trade","data":{"e":"trade","E":<n>,"T":<ms:ts_event>,"s":"<symbol>",'
    '"t":<int:sequence,trade_id_low>,"p":"<price:price>","q":"<size:size>",'
    '"m":<side:true=2|false=1>}}',
)
_FUTURES: Final = Binance.markets["usdm"]
_PARSERS: Final[Mapping[str, Parsers]] = {
    "spot": {
        **FUTURES_PARSERS,
        "trade": msgspec.json.Decoder(Trade, float_hook=str).decode,
        None: SPOT_PARSERS[None],
    },
    "usdm": {**FUTURES_PARSERS, None: SPOT_PARSERS[None]},
}
_LIMITS: Final = replace(
    _FUTURES.limits,
    streams_per_connection=200,
    rest=RestLimit("", 26.0, 100, "X-MBX-USED-WEIGHT-1M", used_max=1_900),  # 2,400 a minute
)


def _market(host: str, numbers: TradeNumbers) -> Market:
    return replace(
        _FUTURES,
        endpoints=(Endpoint(f"wss://{host}stream.asterdex.com/stream"),),
        rest_url=f"https://{host}api.asterdex.com",
        limits=_LIMITS,
        recorded="",
        trade_numbers=numbers,
    )


class Aster(Binance):
    venue: ClassVar[str] = "aster"
    reference: ClassVar[str] = "Aster Spot and Futures API, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": _market("s", TradeNumbers.ASCENDING),
        "usdm": _market("f", TradeNumbers.SPANS),
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        super().__init__(market, symbols)
        self._is_spot = False  # it speaks as futures do
        self._parsers = _PARSERS[market]

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        frequent = (_SPOT_TRADE,) if market == "spot" else ()
        return (*frequent, *super().shapes("usdm"))

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest(f"{_root(market)}/exchangeInfo")]

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        if market == "spot" and "quoteAssetPrecision" not in entry:
            entry = entry | {"quoteAssetPrecision": entry["quotePrecision"]}
        return super().parse_instrument(market, entry)

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        request = super().snapshot_request(symbol)
        return None if request is None else replace(request, path=f"{_root(self._market)}/depth")

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        request = super().audit_request(symbol, depth)
        return replace(request, path=f"{_root(self._market)}/depth")

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        return None if self._market == "spot" else super().history_request(symbol, lost)


def _root(market: str) -> str:
    return "/api/v1" if market == "spot" else "/fapi/v1"


adapter: type[FeedAdapter] = Aster
