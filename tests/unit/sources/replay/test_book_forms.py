"""ingestor.sources.replay.book_forms; tests/feeds/test_book_offers.py replays whole recordings."""

from __future__ import annotations

from ingestor.adapter import OTHER_BOOK, Ack
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.book_forms import BookForms


def depths(forms: BookForms) -> dict[object, int]:
    return {connection: offer.depth for connection, offer in forms.finish().items()}


def test_a_request_goes_before_the_size_of_images() -> None:
    forms, adapter = BookForms(adapter_of("kraken"), "spot"), adapter_of("kraken")("spot", {})
    request = b'{"method":"subscribe","params":{"channel":"book","symbol":["A/B"],"depth":500}}'
    forms.asked("one", adapter, b"no JSON")
    forms.asked("one", adapter, request)
    for connection, levels in (("one", 25), ("two", 25), ("three", 10), ("four", 1_001)):
        forms.book(connection, levels)
    assert depths(forms) == {"one": 500, "two": 25}
    assert adapter.stream("book", "A/B") == "book-500:A/B", "its next frames are read as such"


def test_the_first_form_goes_before_others() -> None:
    forms, adapter = BookForms(adapter_of("okx"), "spot"), adapter_of("okx")("spot", {})
    for channel in ("books5", "books", "books5"):
        assert not forms.answered("c", adapter, b"", Ack((f"{channel}:A-B",)))
    assert depths(forms) == {"c": 400}


def test_frames_of_another_form_choose_it_where_no_book_came_before() -> None:
    adapter = adapter_of("bybit")("spot", {})
    frame = b'{"topic":"orderbook.50.AB"}'
    forms = BookForms(adapter_of("bybit"), "spot")
    assert forms.answered("c", adapter, frame, OTHER_BOOK)
    assert not forms.answered("c", adapter, b'{"topic":"orderbook.1000.AB"}', OTHER_BOOK)
    assert depths(forms) == {"c": 50}
    forms = BookForms(adapter_of("bybit"), "spot")
    forms.book("c", 0)
    assert not forms.answered("c", adapter, frame, OTHER_BOOK)
    assert depths(forms) == {}
