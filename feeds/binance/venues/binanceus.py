"""Binance.US, spot: Binance's streams and lists at addresses and limits of its own.

Reference: Binance.US "WebSocket Market Streams", REST "Exchange Information", "Order Book", read
2026-11-30.
Units and traps: as `feeds/binance/adapter.py` has them for spot. Besides:
- `historicalTrades` wants a key: lost trades are declared and not fetched.
- REST allows 1,200 weight a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from ingestor.adapter import (
    Endpoint,
    FeedAdapter,
    LostTrades,
    Market,
    RestLimit,
    RestRequest,
)

from ..adapter import Binance

_SPOT: Final = Binance.markets["spot"]
_WEIGHT: Final = 10  # of 1,000 levels, as of the list; the venue's page names both
_WHOLE_WEIGHT: Final = 50  # of 5,000 levels


class BinanceUs(Binance):
    venue: ClassVar[str] = "binanceus"
    reference: ClassVar[str] = "Binance.US WebSocket Market Streams, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": replace(
            _SPOT,
            other_hosts=(),
            endpoints=(Endpoint("wss://stream.binance.us:9443/ws"),),
            rest_url="https://api.binance.us",
            recorded="",
            limits=replace(
                _SPOT.limits,
                rest=RestLimit("spot", 10.0, 100, "X-MBX-USED-WEIGHT-1M", used_max=950),
            ),
        )
    }

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v3/exchangeInfo", weight=_WEIGHT)]

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        limit = self._offer.depth
        weight = _WEIGHT if limit <= 1_000 else _WHOLE_WEIGHT
        query = {"symbol": symbol, "limit": str(limit)}
        return RestRequest("/api/v3/depth", query, weight)

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        return None


adapter: type[FeedAdapter] = BinanceUs
