"""ingestor.app.book_verification: what is said of a contradiction; tests/e2e runs the command."""

from __future__ import annotations

import pytest

from ingestor.app.book_verification import difference, for_books
from ingestor.books.book import Levels
from ingestor.config.model import Config
from ingestor.model.instruments import instrument

ONE = instrument("acme", "spot", "A", "A-B", "A", "B", "0.01", "1")
BIDS: Levels = [(100, 5), (99, 6)]
ASKS: Levels = [(-101, 7)]


@pytest.mark.parametrize(
    ("bids", "asks", "text"),
    [
        (BIDS, ASKS, ""),
        ([(100, 5), (99, 9)], ASKS, "bid 2: the book has 6 at 0.99, the image 9 at 0.99"),
        (BIDS, [(-102, 7)], "ask 1: the book has 7 at 1.01, the image 7 at 1.02"),
        (BIDS[:1], ASKS, "bid 2: the book has 6 at 0.99, the image none"),
        (BIDS, [*ASKS, (-120, 1)], "ask 2: the book has none, the image 1 at 1.2"),
    ],
)
def test_the_first_level_that_differs_is_named(bids: Levels, asks: Levels, text: str) -> None:
    assert difference(ONE, (3, BIDS, ASKS), (3, bids, asks)) == text


def test_nothing_but_books_is_subscribed_to_and_nothing_is_written() -> None:
    feed = {"venue": "okx", "symbols": ["BTC-USDT"], "channels": ["trades"]}
    config = Config.model_validate({"feeds": [feed], "recorder": {"path": "/nowhere"}})
    chosen = for_books(config)
    assert [one.channels for one in chosen.feeds] == [("book",)]
    assert (chosen.recorder, chosen.http.enabled) == (None, False)
