"""ingestor.app.book_choice: what a configuration may ask for, and what it is told otherwise."""

from __future__ import annotations

import pytest

from ingestor.app.book_choice import offer_of
from ingestor.model.errors import ConfigError
from ingestor.sources.registry import adapter_of


@pytest.mark.parametrize(
    ("venue", "market", "depth", "speed_ms", "chosen"),
    [
        ("kraken", "spot", 100, None, (100, 0)),
        ("kraken", "spot", 10, 0, (10, 0)),
        ("bybit", "linear", 50, None, (50, 20)),
        ("bybit", "inverse", None, 200, (1_000, 200)),
        ("okx", "swap", 5, None, (5, 100)),
        ("okx", "swap", None, 100, (400, 100)),
        ("binance", "spot", 5_000, 1_000, (5_000, 1_000)),
        ("binance", "usdm", None, 500, (1_000, 500)),
        ("binance", "coinm", 100, None, (100, 100)),
    ],
)
def test_what_venues_offer(
    venue: str, market: str, depth: int | None, speed_ms: int | None, chosen: tuple[int, int]
) -> None:
    offer = offer_of(adapter_of(venue).markets[market], venue, depth, speed_ms, "")
    assert offer is not None
    assert (offer.depth, offer.speed_ms) == chosen


@pytest.mark.parametrize(
    ("venue", "market", "depth", "speed_ms", "message"),
    [
        (
            *("kraken", "spot", 20, None),
            (
                "feeds[0].depth: kraken spot has no book of 20 levels; "
                "valid are 10, 25, 100, 500, 1000; the nearest is 25"
            ),
        ),
        (
            *("bybit", "linear", 500, None),
            (
                "feeds[0].depth: bybit linear has no book of 500 levels; "
                "valid are 1, 50, 200, 1000; the nearest is 200"
            ),
        ),
        (
            *("bybit", "linear", 50, 100),
            (
                "feeds[0].speed_ms: bybit linear has no book of 50 levels every 100 ms; "
                "valid are 20; the nearest is 20"
            ),
        ),
        (
            *("binance", "usdm", None, 1_000),
            (
                "feeds[0].speed_ms: binance usdm has no book every 1000 ms; "
                "valid are 100, 250, 500; the nearest is 500"
            ),
        ),
        (
            *("coinbase", "spot", 50, None),
            (
                "feeds[0]: the books of coinbase spot have one depth and one speed; "
                "leave out depth and speed_ms"
            ),
        ),
    ],
)
def test_what_they_do_not_is_refused_in_one_line(
    venue: str, market: str, depth: int | None, speed_ms: int | None, message: str
) -> None:
    described = adapter_of(venue).markets[market]
    with pytest.raises(ConfigError) as raised:
        offer_of(described, f"{venue} {market}", depth, speed_ms, "feeds[0]")
    assert str(raised.value).replace(" (", "; ").rstrip(")") == message


def test_nothing_is_chosen_where_nothing_is_asked_for() -> None:
    assert offer_of(adapter_of("kraken").markets["spot"], "kraken spot", None, None, "") is None
