"""Bitstamp's books: differences, or the whole of 100 levels each time."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from feeds.bitstamp import Bitstamp
from ingestor.adapter.book_offers import offer_named
from ingestor.model.rows import Kind
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay

NOW_NS = 1_767_225_600_000_000_000


@pytest.mark.parametrize(("stream", "place"), [("diff_order_book_", 0), ("order_book_", 1)])
def test_the_form_is_told_by_the_channel(stream: str, place: int) -> None:
    """Quotes have the stream of the book, of which they are the best levels."""
    offers = Bitstamp.markets["spot"].books
    assert offer_named(Bitstamp, "spot", [f"{stream}btcusd"]) == offers[place]


def test_a_recording_of_whole_books_alone(tmp_path: Path) -> None:
    url = "wss://ws.bitstamp.net"
    lines: list[dict[str, object]] = [{"t": "connect", "ts_ns": NOW_NS, "conn": "c", "url": url}]
    for number, size in enumerate(("1", "2"), 1):
        levels = {"bids": [["100", size]], "asks": [["101", "5"]]}
        data = levels | {"microtimestamp": str(NOW_NS // 1_000 + number)}
        frame = {"event": "data", "channel": "order_book_btcusd", "data": data}
        text = orjson.dumps(frame).decode()
        lines.append({"t": "recv", "ts_ns": NOW_NS + number, "conn": "c", "data": text})
    path = tmp_path / "frames.jsonl"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    replay = Replay(ReplayOptions((path,), venue="bitstamp", market="spot"))
    found = [
        (int(row["kind"]), int(row["size"]))
        for result in replay.results()
        for batch in result.batches
        if batch.row_class.channel == "book"
        for row in batch.rows
    ]
    level = int(Kind.LEVEL)
    assert found == [(int(Kind.RESET), 0), (level, 1), (level, 5), (level, 2)]
