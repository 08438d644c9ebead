"""OKX's books begin with an image of the socket or of REST, whichever comes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from feeds.okx import Okx
from ingestor.adapter import ColumnBuffer
from ingestor.adapter.contract import Subscription
from ingestor.books.manager import BookManager
from ingestor.books.settings import BookSettings
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.rows import Cause, Kind

S = 1_000_000_000
SYMBOL = "ETH-USDT"
MARKET = Okx.markets["spot"]


class Bench:
    """One book on one connection; the test says what comes, and when."""

    def __init__(self) -> None:
        one = instrument("okx", "spot", SYMBOL, SYMBOL, "ETH", "USDT", "0.1", "1")
        self.table = InstrumentTable([one])
        self.buffer = ColumnBuffer()
        feed = Okx("spot", self.table.symbols("okx", "spot"))
        stream = Subscription(0, SYMBOL, "book", f"books:{SYMBOL}")
        counts = FrameCounts()
        self.session = Session(1, feed, [stream], self.buffer, counts, SessionEvents(), "spot")
        settings = BookSettings(snapshot_timeout_s=5.0)
        self.books = BookManager(self.table, lambda _number: MARKET.book, settings)
        self.now_ns = 1_790_000_000 * S

    def socket(self, action: str, number: int, before: int, size: str = "2") -> None:
        argument = {"channel": "books", "instId": SYMBOL}
        update = self._sides(number, size) | {"prevSeqId": before, "checksum": 0}
        frame = {"arg": argument, "action": action, "data": [update]}
        self.session.receive(orjson.dumps(frame), self.now_ns)

    def rest(self, number: int | None, size: str = "2") -> bool:
        body = {"code": "0", "msg": "", "data": [self._sides(number, size)]}
        return self.session.snapshot(SYMBOL, orjson.dumps(body), self.now_ns)

    def _sides(self, number: int | None, size: str) -> dict[str, Any]:
        sides = {"bids": [["20.5", size, "0", "1"]], "asks": [["21.0", "4", "0", "1"]]}
        named = {} if number is None else {"seqId": number}
        return sides | {"ts": "1750000000000"} | named

    def flush(self, seconds: float = 0.0) -> list[str]:
        """Let time pass and seal; return the rows in short words, and the repairs asked for."""
        self.now_ns += round(seconds * S)
        output = self.books.apply(self.buffer.seal(self.table), self.now_ns)
        rows = [
            f"{Kind(row['kind']).name.lower()} {row['sequence']}"
            + (f" {Cause(row['side']).name.lower()}" if row["kind"] == Kind.GAP else "")
            for row in output.rows
        ]
        return rows + ["repair"] * len(output.repairs)


SEEDED = ["reset 10", "level 10", "level 10"]


def test_an_image_on_the_socket_is_enough() -> None:
    bench = Bench()
    bench.socket("snapshot", 10, -1)
    bench.socket("update", 12, 10)
    assert bench.flush() == [*SEEDED, "level 12", "level 12"]
    assert bench.flush(60) == []


def test_without_one_the_book_is_seeded_over_rest() -> None:
    """Updates wait for it: those that the image covers go, the next must join it."""
    bench = Bench()
    bench.socket("update", 8, 7)
    bench.socket("update", 9, 8)
    bench.socket("update", 12, 9)
    bench.socket("update", 13, 12)
    assert bench.flush() == []
    assert bench.flush(1) == [], "an image may come yet"
    assert bench.flush(5) == ["repair"]
    assert bench.rest(10)
    assert bench.flush() == [*SEEDED, "level 12", "level 12", "level 13", "level 13"]
    assert bench.books.is_valid(0)
    bench.socket("update", 15, 14)
    assert bench.flush()[0] == "gap 0 sequence"


@pytest.mark.parametrize("late_s", [0.0, 5.0])
def test_an_image_of_the_socket_that_comes_late_begins_the_book(late_s: float) -> None:
    """What was held came before it. The answer of REST comes too late then."""
    bench = Bench()
    bench.socket("update", 9, 8)
    bench.flush(late_s)
    bench.socket("snapshot", 10, -1)
    bench.socket("update", 11, 10)
    rows = bench.flush()
    assert rows == [*SEEDED, "level 11", "level 11"]
    bench.rest(9, size="77")
    assert bench.flush(60) == []
    bench.socket("update", 12, 11)
    assert bench.flush() == ["level 12", "level 12"]


def test_an_image_that_is_older_than_what_waits_is_asked_for_again() -> None:
    bench = Bench()
    bench.socket("update", 12, 11)
    bench.flush()
    bench.flush(6)
    bench.rest(10)
    assert bench.flush() == ["repair"]
    bench.rest(11)
    assert bench.flush() == ["reset 11", "level 11", "level 11", "level 12", "level 12"]


def test_an_image_without_a_number_is_no_seed() -> None:
    bench = Bench()
    bench.socket("update", 12, 11)
    bench.flush(6)
    assert not bench.rest(None)
    assert not bench.rest(0)
    assert not bench.books.is_valid(0)


def test_images_are_asked_for_as_the_venue_documents() -> None:
    feed = Okx("spot", {SYMBOL: 0})
    request = feed.snapshot_request(SYMBOL)
    assert request is not None
    assert (request.path, request.query) == (
        "/api/v5/market/books",
        {"instId": SYMBOL, "sz": "400"},
    )
    image = feed.decode_audit(
        SYMBOL, orjson.dumps({"code": "0", "data": [{"bids": [], "asks": [], "seqId": 7}]})
    )
    assert image.number == 7
