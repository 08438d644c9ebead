"""The list of venues, and the page that is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingestor.adapter import FeedAdapter
from ingestor.cli.venues import describe_feeds, feeds_text, venues_page
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.sources.registry import adapter_of, registry
from tests.fakes.acme import Acme

PAGE = Path(__file__).parents[3] / "docs" / "venues.md"


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return describe_feeds(None)


def test_each_class_of_each_market_is_there_once(found: list[dict[str, Any]]) -> None:
    expected = {
        (venue, market, channel)
        for venue in registry().sources
        for market, described in adapter_of(venue).markets.items()
        for endpoint in described.endpoints
        for channel in endpoint.channels
    }
    listed = [(one["venue"], one["market"], one["class"]) for one in found]
    assert len(listed) == len(set(listed))
    assert set(listed) == expected
    assert {one["class"] for one in found} <= {*ROW_CLASSES.channels}
    for one in found:
        assert one["limits"]["streams_per_connection"] > 0
        assert one.keys() >= {"market", "class", "channel", "book_proof", "reference", "read"}


def test_what_an_entry_says(found: list[dict[str, Any]]) -> None:
    by_key = {(one["venue"], one["market"], one["class"]): one for one in found}
    trades = by_key["binance", "spot", "trades"]
    assert trades["channel"] == "symbol@trade"
    assert trades["book_proof"] == ["number range", "quotes", "REST image"]
    assert (trades["read"][:2], trades["reference"][-5:]) == ("20", "spot and futures"[-5:])
    assert trades["limits"]["streams_per_connection"] == 1_024
    assert by_key["kraken", "spot", "book"]["book_proof"][0] == "checksum"
    assert by_key["kraken", "spot", "book"]["recorded"]


def test_the_page_is_current(found: list[dict[str, Any]]) -> None:
    """Write it anew with `ingestor feeds --markdown > docs/venues.md`."""
    assert PAGE.read_text("utf-8") == venues_page(found)


def test_a_market_has_one_line(found: list[dict[str, Any]]) -> None:
    lines = feeds_text(found).splitlines()
    assert len(lines) == 1 + len({(one["venue"], one["market"]) for one in found})
    assert lines[0].split()[:2] == ["venue", "market"]


def test_an_adapter_that_wants_a_real_symbol_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(Acme):
        def stream(self, channel: str, symbol: str) -> str:
            raise KeyError(symbol)

    adapter: type[FeedAdapter] = Strict
    monkeypatch.setattr("ingestor.cli.venues.adapter_of", lambda _venue: adapter)
    described = describe_feeds("acme")
    assert {one["channel"] for one in described} == {one["class"] for one in described}
    assert not any(one["recorded"] for one in described)
    assert "never seen live" in venues_page(described)
