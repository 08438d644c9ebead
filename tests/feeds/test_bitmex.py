"""BitMEX's books, whose levels have ids: what an id tells, and messages without prices."""

from __future__ import annotations

import orjson

from feeds.bitmex import Bitmex
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import Pipeline
from tests.feeds.fixtures import load
from tests.feeds.harness import TS_RECV, Connection


class Book:
    """One book, fed with messages; `rows` are what was published of it."""

    def __init__(self) -> None:
        fixture = load(Bitmex, "derivatives")
        table = fixture.table()
        self.pipeline = Pipeline(table, lambda _: Bitmex.markets["derivatives"].book)
        queue = self.pipeline.frame_queues.of(Bitmex, "derivatives")
        self.session = Connection(fixture, table, queue.buffer, queue.counts).session
        self.repairs = 0

    def send(self, action: str, *levels: tuple[int, str, int | None, float | None]) -> list[str]:
        """Deliver a message of levels: id, side, size, price. Return the rows in words."""
        rows = [
            {"symbol": "XBTUSD", "id": number, "side": side}
            | ({} if size is None else {"size": size})
            | ({} if price is None else {"price": price})
            for number, side, size, price in levels
        ]
        message = {"table": "orderBookL2", "action": action, "data": rows}
        self.session.receive(orjson.dumps(message), TS_RECV)
        result = self.pipeline.flush(TS_RECV)
        self.repairs += len(result.repairs)
        return [
            f"{row['price'] / 10:g}={row['size']}" if row["kind"] == Kind.LEVEL else
            Kind(int(row["kind"])).name
            for batch in result.batches
            if batch.row_class.channel == "book"
            for row in batch.rows
        ]  # fmt: skip


def begun() -> Book:
    book = Book()
    found = book.send("partial", (1, "Buy", 5, 10.5), (2, "Sell", 6, 11.0))
    assert found == ["RESET", "10.5=5", "11=6"]
    return book


def test_an_id_stands_for_the_price_where_a_message_has_none() -> None:
    book = begun()
    assert book.send("update", (1, "Buy", 7, None)) == ["10.5=7"]
    assert book.send("insert", (3, "Buy", 1, 10.0)) == ["10=1"]
    assert book.send("delete", (3, "Buy", None, None)) == ["10=0"]
    assert book.repairs == 0


def test_a_lost_insert_is_found_when_its_level_changes() -> None:
    for action, size in (("update", 4), ("delete", None)):
        book = begun()
        assert book.send(action, (9, "Buy", size, 10.0)) == ["GAP"]
        assert book.repairs == 1


def test_a_lost_delete_is_found_when_its_level_comes_again() -> None:
    book = begun()
    assert book.send("insert", (2, "Sell", 1, 11.0)) == ["GAP"]
    assert book.repairs == 1


def test_a_doubled_insert_or_delete_is_found() -> None:
    for action in ("insert", "delete"):
        book = begun()
        if action == "insert":
            book.send("insert", (3, "Buy", 1, 10.0))
            assert book.send("insert", (3, "Buy", 1, 10.0)) == ["GAP"]
        else:
            book.send("delete", (1, "Buy", None, 10.5))
            assert book.send("delete", (1, "Buy", None, 10.5)) == ["GAP"]


def test_a_new_image_heals() -> None:
    book = begun()
    book.send("insert", (2, "Sell", 1, 11.0))
    assert book.send("update", (2, "Sell", 9, 11.0)) == []
    assert book.send("partial", (4, "Buy", 1, 9.0)) == ["RESET", "9=1"]
    assert book.send("update", (4, "Buy", 2, None)) == ["9=2"]


def test_before_an_image_nothing_is_known_and_nothing_is_missing() -> None:
    book = Book()
    assert book.send("update", (1, "Buy", 7, 10.5)) == []
    assert book.repairs == 0
