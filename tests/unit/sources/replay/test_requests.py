"""Recorded REST addresses and the requests that they are of."""

from __future__ import annotations

import pytest

from feeds.simulated import Simulated
from ingestor.adapter import RestRequest
from ingestor.sources.replay.requests import matches, snapshot_symbol

REQUEST = RestRequest("/api/v3/depth", {"symbol": "A", "limit": "1000"})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x.example/api/v3/depth?symbol=A&limit=100", True),
        ("https://x.example/api/v3/depth", True),
        ("https://x.example/api/v3/depth?symbol=B", False),
        ("https://x.example/fapi/v1/depth?symbol=A", False),
        ("/depth", True),
        ("/trades", False),
        ("/", False),
        ("", False),
    ],
)
def test_addresses_match_requests(url: str, expected: bool) -> None:
    assert matches(url, REQUEST) is expected


@pytest.mark.parametrize(
    ("url", "symbol"),
    [
        ("https://x/depth/BTC_USDT", "BTC_USDT"),
        ("/depth/BTC%2FUSDT?limit=5", "BTC/USDT"),
        ("https://x/depth/", None),
        ("https://x/trades/BTC_USDT", None),
    ],
)
def test_a_symbol_in_the_path_of_a_snapshot(url: str, symbol: str | None) -> None:
    class Acme(Simulated):
        def snapshot_request(self, symbol: str) -> RestRequest | None:
            return RestRequest(f"/depth/{symbol}")

    assert snapshot_symbol(Acme("spot", {}), url) == symbol
