"""What the feeds allow themselves, against what the venues' documents allow.

Each line is a limit of a document: so many in any window of so many seconds. A burst and the rate
over the window must leave room for another program on the address.
"""

from __future__ import annotations

import pytest

from ingestor.adapter import Limits
from ingestor.sources.registry import adapter_of

# venue, markets, allowed, window in s, and the page
CONNECTS = [
    ("binance", "spot usdm coinm", 300, 300, "WebSocket Streams: 300 attempts every 5 minutes"),
    ("bybit", "spot linear inverse", 500, 300, "Connect: 500 connections within 5 minutes"),
    ("okx", "spot swap futures", 3, 1, "Overview: 3 requests per second, by IP"),
    ("coinbase", "spot", 8, 1, "WebSocket Rate Limits: 8 per second per IP"),
    ("kraken", "spot", 150, 600, "FAQ: about 150 per rolling 10 minutes"),
    ("bitget", "spot usdt usdc coin", 300, 300, "Websocket: 300 requests/IP/5min"),
    ("whitebit", "spot perp", 1_000, 60, "WebSocket: 1,000 new connections a minute"),
    ("lighter", "perp spot", 80, 60, "Rate limits: 80 connections a minute"),
]
REST = [
    ("binance", "spot", 6_000, 60, "REST: 6,000 request weight a minute"),
    ("binance", "usdm coinm", 2_400, 60, "COIN-M/USD-M Architecture Integration: 2,400, shared"),
    ("bybit", "spot linear inverse", 600, 5, "Rate limit: 600 requests within 5 s, by IP"),
    ("okx", "spot swap futures", 20, 2, "Get instruments: 20 requests per 2 s"),
    ("coinbase", "spot", 10, 1, "REST rate limits: public endpoints 10 per second, by IP"),
    ("bitget", "spot usdt usdc coin", 20, 1, "Get Instruments: 20 a second, by IP"),
    ("whitebit", "spot perp", 2_000, 10, "Market Info: 2,000 requests in 10 s"),
    ("backpack", "spot perp", 2_000, 60, "Rate limits: 2,000 a minute"),
    ("krakenfutures", "linear inverse", 500, 10, "Rate limits: a cost of 500 in 10 s"),
]
REQUESTS = [
    ("binance", "spot", 5, 1, "WebSocket Streams: 5 incoming messages a second"),
    ("binance", "usdm coinm", 10, 1, "Websocket Market Streams: 10 incoming messages a second"),
    ("bitget", "spot usdt usdc coin", 10, 1, "Websocket: up to 10 messages a second"),
    ("cryptocom", "spot derivatives", 100, 1, "Rate limits: 100 a second, market data"),
    ("krakenfutures", "linear inverse", 100, 1, "WebSocket: 100 requests a second"),
    ("poloniex", "spot", 500, 1, "WebSocket: 500 requests a second"),
    ("lighter", "perp spot", 200, 60, "Rate limits: 200 messages a minute"),
]


def limits_of(venue: str, markets: str) -> list[Limits]:
    return [adapter_of(venue).markets[market].limits for market in markets.split()]


@pytest.mark.parametrize(("venue", "markets", "allowed", "window_s", "page"), CONNECTS)
def test_connects(venue: str, markets: str, allowed: int, window_s: int, page: str) -> None:
    for limits in limits_of(venue, markets):
        most = limits.connects_burst + limits.connects_per_s * window_s
        assert most <= allowed * (1.0 if allowed <= 3 else 0.91), page


@pytest.mark.parametrize(("venue", "markets", "allowed", "window_s", "page"), REST)
def test_rest_weight(venue: str, markets: str, allowed: int, window_s: int, page: str) -> None:
    for limits in limits_of(venue, markets):
        most = limits.rest.weight_burst + limits.rest.weight_per_s * window_s
        assert most <= allowed, page
        assert limits.rest.used_max <= 0.8 * allowed, page
    assert len({limits.rest for limits in limits_of(venue, markets)}) == 1


@pytest.mark.parametrize(("venue", "markets", "allowed", "window_s", "page"), REQUESTS)
def test_requests(venue: str, markets: str, allowed: int, window_s: int, page: str) -> None:
    """A burst of a second's rate comes on top: pongs count too."""
    for limits in limits_of(venue, markets):
        most = int(limits.requests_per_s) + limits.requests_per_s * window_s
        assert most <= allowed, page


def test_coinbase_counts_messages_by_address() -> None:
    """8 a second for all connections of an address: subscriptions of ten connections at once."""
    (limits,) = limits_of("coinbase", "spot")
    rate = limits.address_requests_per_s
    assert 0 < rate + max(1, int(rate / 2)) <= 8


def test_okx_limits_books_and_requests_of_a_connection() -> None:
    for limits in limits_of("okx", "spot swap futures"):
        assert limits.requests_per_hour == 480
        assert 0 < limits.streams_of_channel["book"] < 30
        assert limits.streams_per_connection > 100, "trades and quotes are lighter"


def test_binance_futures_carry_as_many_streams_as_documented() -> None:
    assert {one.streams_per_connection for one in limits_of("binance", "usdm coinm")} == {1_024}
