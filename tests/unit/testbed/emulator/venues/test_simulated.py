"""Serving a recording of the simulated venue; tests/e2e/test_demo_recording.py does it whole."""

from __future__ import annotations

import orjson

from feeds.simulated import Simulated as Adapter
from ingestor.testbed.emulator.registry import venue_of
from ingestor.testbed.emulator.venue import Book, Listed

VENUE = venue_of("simulated")
SYMBOL = "S00001-USD"
SNAPSHOT = {"ch": "snapshot", "s": SYMBOL, "t": 1, "u": 9, "b": [["1.0", "2"]], "a": [["1.5", "1"]]}
DELTA = {"ch": "book", "s": SYMBOL, "t": 2, "U": 10, "u": 10, "b": [["1.0", "0"]], "a": []}


class Connection:
    """A client that may subscribe to the book alone."""

    name, path = "c", "/stream"

    def __init__(self) -> None:
        self.subscribed: list[str] = []

    def subscribe(self, stream: str) -> bool:
        if stream != f"book:{SYMBOL}":
            return False
        self.subscribed.append(stream)
        return True

    def unsubscribe(self, stream: str) -> bool:
        return stream in self.subscribed


def test_frames_belong_to_streams() -> None:
    assert list(VENUE.streams(SNAPSHOT)) == list(VENUE.streams(DELTA)) == [f"book:{SYMBOL}"]
    trade = {"ch": "trade", "s": SYMBOL, "t": 1, "i": 5, "p": "1.25", "q": "3", "m": "buy"}
    assert list(VENUE.streams(trade)) == [f"trade:{SYMBOL}"]
    assert list(VENUE.prints(trade)) == [(SYMBOL, "1.25", "3")]
    assert not list(VENUE.streams({"op": "ack", "streams": []}))
    assert not list(VENUE.streams(None))


def test_who_comes_late_gets_an_image_of_the_book() -> None:
    book = Book()
    for message in (SNAPSHOT, DELTA):
        for change in VENUE.changes(message):
            book.apply(change)
    image = VENUE.image(f"book:{SYMBOL}", book)
    assert image is not None
    assert orjson.loads(image) == {**SNAPSHOT, "t": 2, "u": 10, "b": []}


def test_each_stream_is_answered() -> None:
    connection = Connection()
    text = orjson.dumps({"op": "subscribe", "streams": [f"book:{SYMBOL}", "trade:NONE"]})
    answers = [orjson.loads(one) for one in VENUE.receive(text, connection)]  # type: ignore[arg-type]
    assert answers == [
        {"op": "ack", "streams": [f"book:{SYMBOL}"]},
        {"op": "error", "streams": ["trade:NONE"], "text": "no such stream"},
    ]
    assert not list(VENUE.receive(b'{"op":"pong","id":1}', connection))  # type: ignore[arg-type]
    [refusal] = VENUE.receive(b"hello", connection)  # type: ignore[arg-type]
    assert orjson.loads(refusal)["op"] == "error"
    assert VENUE.heartbeat(connection) == b'{"op":"heartbeat"}'  # type: ignore[arg-type]


def test_the_feed_reads_the_list() -> None:
    listed = [Listed(SYMBOL, "S00001", "USD", "0.01", "0.0001", {})]
    body = orjson.dumps(VENUE.instrument_list(listed, {}, "spot"))
    [entry] = Adapter.instrument_entries("spot", body)
    found = Adapter.parse_instrument("spot", entry)
    assert (found.symbol, found.tick_size, found.lot_size) == (SYMBOL, "0.01", "0.0001")
    assert VENUE.lists_instruments_at("/instruments")
