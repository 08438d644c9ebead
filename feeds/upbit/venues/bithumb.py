"""Bithumb, spot: Upbit's streams and lists at addresses and limits of its own.

Reference: Bithumb API docs 2.1: WebSocket "Basics", "Trade", "Orderbook", REST "Trading pairs",
read 2026-11-30. Units and traps: as `feeds/upbit/adapter.py` has them. Besides:
- Times of books may be microseconds.
- The older wss://pubwss.bithumb.com/pub/ws speaks otherwise, and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from ingestor.adapter import Endpoint, FeedAdapter, Listing, Market, RestLimit, RestRequest

from ..adapter import Upbit

_SPOT: Final = Upbit.markets["spot"]


class Bithumb(Upbit):
    venue: ClassVar[str] = "bithumb"
    reference: ClassVar[str] = "Bithumb API docs 2.1, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": replace(
            _SPOT,
            endpoints=(Endpoint("wss://ws-api.bithumb.com/websocket/v1"),),
            rest_url="https://api.bithumb.com",
            other_hosts=(),
            limits=replace(
                _SPOT.limits,
                connects_per_s=8.0,  # 10 are allowed
                connects_burst=2,
                rest=RestLimit(weight_per_s=50.0, weight_burst=50),  # 150 a second
            ),
        )
    }

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/v1/market/all", {"isDetails": "true"})]

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return Listing(entry["market"], trading=True, status=entry.get("market_warning", "NONE"))


adapter: type[FeedAdapter] = Bithumb
