"""ingestor.adapter.book_offers; tests/feeds/test_book_offers.py tries each form of each venue."""

from __future__ import annotations

import pytest

from ingestor.adapter import BookOffer
from ingestor.adapter.book_offers import adapter_with, offer_named
from ingestor.sources.registry import adapter_of
from tests.fakes.acme import Acme


@pytest.mark.parametrize(
    ("venue", "streams", "depth"),
    [
        ("kraken", ["trade:A/B", "book-25:A/B"], 25),
        ("kraken", ["book-25:A/B", "book:A/B"], 10),  # the first form goes before others
        ("kraken", ["book-26:A/B"], None),
        ("kraken", [], None),
        ("bybit", ["orderbook.1.AB"], None),  # quotes have it too
        ("bybit", ["orderbook.50.AB"], 50),
        ("okx", ["bbo-tbt:A-B", "books5:A-B"], 5),
    ],
)
def test_streams_name_forms(venue: str, streams: list[str], depth: int | None) -> None:
    offer = offer_named(adapter_of(venue), "spot", streams)
    assert (offer.depth if offer else None) == depth


def test_a_stream_of_quotes_may_be_known_to_be_a_book() -> None:
    offer = offer_named(adapter_of("bybit"), "spot", ["orderbook.1.AB"], are_books=True)
    assert offer is not None
    assert offer.depth == 1


def test_an_adapter_with_one_form_has_that() -> None:
    made = adapter_with(Acme, "spot", {"A": 0}, BookOffer(5))
    assert made.stream("book", "A") == "book:A"
    assert offer_named(Acme, "spot", ["book:A"]) is None
    assert offer_named(Acme, "no such market", ["book:A"]) is None
