"""Coinbase International: Deribit's perpetuals and futures, as Coinbase's gateway gives them.

Reference: Coinbase Developer Documentation, "International Derivatives" (overview, technical
guide): JSON-RPC over https://drb.coinbase.com/api/v2 and wss://drb.coinbase.com/ws/api/v2 since
2026-09-09, read 2026-11-30. Units and traps: as `feeds/deribit/adapter.py` has them. Besides:
- What isn't said by the documents and done by two clients of others: without a login, the host
  is streams.drb.coinbase.com. `url` of the feed leads to the other one.
- Perpetuals are named `BTC_USDC-PERPETUAL`, where the platform before had BTC-PERP. The channels
  of that platform (wss://ws-md.international.coinbase.com) are gone.
- Order books are Deribit's own: who reads both has each trade twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from ingestor.adapter import FeedAdapter, Market

from ..adapter import Deribit


class CoinbaseIntl(Deribit):
    venue: ClassVar[str] = "coinbaseintl"
    reference: ClassVar[str] = "Coinbase International Derivatives, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "future": replace(
            Deribit.markets["future"],
            endpoints=tuple(
                replace(endpoint, url="wss://streams.drb.coinbase.com/ws/api/v2")
                for endpoint in Deribit.markets["future"].endpoints
            ),
            rest_url="https://drb.coinbase.com",
        )
    }


adapter: type[FeedAdapter] = CoinbaseIntl
