"""Books in the forms that venues offer: chosen in a configuration, found in recordings."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson
import pytest

from ingestor.adapter import (
    BookOffer,
    ColumnBuffer,
    Continuity,
    FeedAdapter,
    Filtered,
    OffersBooks,
)
from ingestor.adapter.book_offers import adapter_with, offer_named
from ingestor.columns.narrowing import DEFERRED_WIDTH
from ingestor.decode.frame_queue import FrameQueues
from ingestor.sources.registry import adapter_of
from tests.feeds.fixtures import load
from tests.feeds.truth import replayed

START_NS = 1_750_000_000_500_000_000
MS = 1_750_000_000_123
OFFERS = [
    (venue, market, offer)
    for venue in ("binance", "bybit", "kraken", "okx")
    for market, described in adapter_of(venue).markets.items()
    for offer in described.books
]
VENUE_DEPTHS = {
    "kraken": {"spot": [10, 25, 100, 500, 1_000]},
    "bybit": {one: [1, 50, 200, 1_000] for one in ("spot", "linear", "inverse")},
    "okx": {one: [1, 5, 400] for one in ("spot", "swap", "futures")},
    "binance": {"spot": [100, 500, 1_000, 5_000], "usdm": [100, 500, 1_000]},
}


@pytest.mark.parametrize("venue", VENUE_DEPTHS)
def test_depths_are_those_of_the_documents(venue: str) -> None:
    for market, depths in VENUE_DEPTHS[venue].items():
        offers = adapter_of(venue).markets[market].books
        assert sorted({offer.depth for offer in offers}) == depths


@pytest.mark.parametrize(("venue", "market", "offer"), OFFERS)
def test_each_form_is_asked_for_and_found_again(venue: str, market: str, offer: BookOffer) -> None:
    adapter = adapter_of(venue)
    symbol = load(adapter, market).instruments[0].symbol
    made = adapter_with(adapter, market, {symbol: 0}, offer)
    assert isinstance(made, OffersBooks)
    stream = made.stream("book", symbol)
    found = offer_named(adapter, market, [stream], are_books=True)
    assert found is not None
    if venue == "binance":  # the depth is the snapshot's
        assert found.speed_ms == offer.speed_ms
        request = made.snapshot_request(symbol)
        assert request is not None
        assert request.query["limit"] == str(offer.depth)
    else:
        assert found == offer
    (frame,) = [one for one in made.subscribe([stream]) if b"heartbeats" not in one]
    (back,) = list(made.unsubscribe([stream]))
    for sent in (frame, back):
        content = orjson.loads(sent)
        if venue == "kraken":
            assert content["params"]["depth"] == offer.depth
            assert content["params"]["channel"] == "book"
        else:
            assert stream.partition(":")[0] in sent.decode()


def levels(count: int, sign: int = -1, size: str = "2.0") -> list[list[str]]:
    """Return levels around 1,000, best first, in steps of 0.5."""
    return [[f"{1_000 + sign * (number + 1) / 2:.1f}", size] for number in range(count)]


def kraken_book(
    kind: str, bids: list[list[str]], asks: list[list[str]], shown: Any, decimals: Any = (1, 1)
) -> str:
    """Return a frame as Kraken has it. shown: the book's best levels, for the checksum."""
    text = ""
    for side in shown:
        for level in side[:10]:
            for number, exponent in zip(level, decimals, strict=True):
                text += str(int(Decimal(number).scaleb(exponent)))
    sides = ",".join(
        f'"{name}":[{",".join(f"""{{"price":{price},"qty":{size}}}""" for price, size in side)}]'
        for name, side in (("bids", bids), ("asks", asks))
    )
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"ETH/USD",{sides},'
        f'"checksum":{crc32(text.encode())},"timestamp":"2025-06-15T15:06:40.5Z"}}]}}'
    )


def recording(folder: Path, venue: str, market: str, *lines: tuple[str, str]) -> Path:
    path = folder / f"frames.{venue}.{market}.jsonl"
    with path.open("wb") as file:
        begin = {"t": "connect", "ts_ns": START_NS, "conn": "c", "url": "wss://x"}
        file.write(orjson.dumps(begin) + b"\n")
        for number, (kind, data) in enumerate(lines, 1):
            line = {"t": kind, "ts_ns": START_NS + number, "conn": "c", "data": data}
            file.write(orjson.dumps(line) + b"\n")
    return path


ASKED = '{"method":"subscribe","params":{"channel":"book","symbol":["ETH/USD"],"depth":25}}'
ACKED = (
    '{"method":"subscribe","success":true,"result":{"channel":"book","symbol":"ETH/USD",'
    '"snapshot":true,"depth":25},"time_in":"2025-06-15T15:06:40Z"}'
)


@pytest.mark.parametrize("said", [("send", ASKED), ("recv", ACKED), None])
def test_a_recording_of_kraken_has_the_depth_that_it_asked_for(
    tmp_path: Path, said: tuple[str, str] | None
) -> None:
    """25 levels: nothing is cut to ten, and checksums hold when one of the best ten goes."""
    bids, asks = levels(25), levels(25, 1)
    image = kraken_book("snapshot", bids, asks, (asks, bids))
    update = kraken_book("update", [[bids[0][0], "0.0"]], [], (asks, bids[1:]))
    lines = [*([said] if said else []), ("recv", image), ("recv", update)]
    rows, replay = replayed(recording(tmp_path, "kraken", "spot", *lines))
    assert [row for row in rows if "gap" in row or "refused" in row] == []
    assert len([row for row in rows if row.startswith("level")]) == 51
    (statistics,) = replay.pipeline.books.statistics().values()
    assert (statistics.verified, statistics.mismatched) == (2, 0)


def test_a_recording_of_kraken_with_few_levels_keeps_to_what_it_asked_for(tmp_path: Path) -> None:
    """A thin book asked for with 25 levels grows beyond ten."""
    bids, asks = levels(9), levels(9, 1)
    more = [["900.0", "1.0"], ["899.0", "1.0"], ["898.0", "1.0"]]
    image = kraken_book("snapshot", bids, asks, (asks, bids))
    update = kraken_book("update", more, [], (asks, bids + more))
    gone = [[price, "0.0"] for price, _ in bids[:3]]
    last = kraken_book("update", gone, [], (asks, (bids + more)[3:]))
    lines = [("send", ASKED), ("recv", image), ("recv", update), ("recv", last)]
    rows, _ = replayed(recording(tmp_path, "kraken", "spot", *lines))
    assert [row for row in rows if "gap" in row or "refused" in row] == []


def bybit(depth: int, kind: str, number: int, bids: Any, asks: Any) -> tuple[str, str]:
    data = {"s": "ETHUSDT", "b": bids, "a": asks, "u": number, "seq": number}
    topic = f"orderbook.{depth}.ETHUSDT"
    message = {"topic": topic, "type": kind, "ts": MS, "data": data, "cts": MS}
    return "recv", orjson.dumps(message).decode()


@pytest.mark.parametrize("depth", [50, 200, 1_000])
def test_a_recording_of_bybit_has_the_depth_of_its_frames(tmp_path: Path, depth: int) -> None:
    lines = [
        bybit(depth, "snapshot", 8, [["20.5", "2"]], [["21.0", "4"]]),
        bybit(depth, "delta", 9, [["20.5", "3"]], []),
    ]
    rows, _ = replayed(recording(tmp_path, "bybit", "linear", *lines))
    assert rows == ["reset level", "level 8 bid 20.5 2", "level 8 ask 21.0 4", "level 9 bid 20.5 3"]


@pytest.mark.parametrize("other", [50, 1_000])
def test_two_depths_of_bybit_on_one_connection_are_one_book(tmp_path: Path, other: int) -> None:
    """Before, their levels and numbers were mixed."""
    lines = [
        bybit(200, "snapshot", 8, [["20.5", "2"]], [["21.0", "4"]]),
        bybit(other, "snapshot", 800, [["20.0", "7"]], [["21.0", "4"]]),
        bybit(other, "delta", 801, [["20.0", "9"]], []),
        bybit(200, "delta", 9, [["20.5", "3"]], []),
    ]
    rows, replay = replayed(recording(tmp_path, "bybit", "linear", *lines))
    assert rows == ["reset level", "level 8 bid 20.5 2", "level 8 ask 21.0 4", "level 9 bid 20.5 3"]
    (counts,) = replay.counts.values()
    assert dict(counts.filtered_by_rule) == {"other_book": 2}


@pytest.mark.parametrize("topic", ["orderbook.rpi.ETHUSDT", "orderbook.full.ETHUSDT"])
def test_bybits_other_books_are_left_out(tmp_path: Path, topic: str) -> None:
    data = {"s": "ETHUSDT", "b": [["20.5", "2", "1"]], "a": [], "u": 5, "seq": 5}
    message = {"topic": topic, "type": "delta", "ts": MS, "data": data, "cts": MS}
    lines = [
        bybit(200, "snapshot", 8, [["20.5", "2"]], [["21.0", "4"]]),
        ("recv", orjson.dumps(message).decode()),
    ]
    rows, _ = replayed(recording(tmp_path, "bybit", "spot", *lines))
    assert rows == ["reset level", "level 8 bid 20.5 2", "level 8 ask 21.0 4"]


def okx(channel: str, number: int, bid: str, ask: str, **more: object) -> tuple[str, str]:
    update = {"bids": [[bid, "2", "0", "1"]], "asks": [[ask, "4", "0", "1"]], "ts": str(MS)}
    argument = {"channel": channel, "instId": "ETH-USDT"}
    message = {"arg": argument, "data": [update | {"seqId": number}], **more}
    return "recv", orjson.dumps(message).decode()


def test_a_recording_of_okx_with_five_levels_is_a_book(tmp_path: Path) -> None:
    lines = [okx("books5", 8, "20.5", "21.0"), okx("books5", 12, "20.5", "21.5")]
    rows, _ = replayed(recording(tmp_path, "okx", "spot", *lines))
    assert rows == [
        *("reset level", "level 8 bid 20.5 2", "level 8 ask 21.0 4"),
        *("reset level", "level 12 bid 20.5 2", "level 12 ask 21.5 4"),
    ]


def test_okxs_books_and_books5_on_one_connection_are_one_book(tmp_path: Path) -> None:
    lines = [
        ("recv", '{"event":"subscribe","arg":{"channel":"books5","instId":"ETH-USDT"}}'),
        ("recv", '{"event":"subscribe","arg":{"channel":"books","instId":"ETH-USDT"}}'),
        okx("books5", 7, "20.0", "21.0"),
        okx("books", 8, "20.5", "21.0", action="snapshot"),
        okx("books5", 9, "20.0", "21.0"),
    ]
    rows, _ = replayed(recording(tmp_path, "okx", "spot", *lines))
    assert rows == ["reset level", "level 8 bid 20.5 2", "level 8 ask 21.0 4"]


@pytest.mark.parametrize(
    ("venue", "frame"),
    [
        ("okx", okx("bbo-tbt", 8, "20.5", "21.0")[1]),
        ("bybit", bybit(1, "snapshot", 8, [["20.5", "2"]], [["21.0", "4"]])[1]),
    ],
)
def test_the_best_levels_may_be_the_book(venue: str, frame: str) -> None:
    adapter = adapter_of(venue)
    symbol = "ETH-USDT" if venue == "okx" else "ETHUSDT"
    market = adapter.markets["spot"]
    (offer,) = [one for one in market.books if one.depth == 1]
    rule = market.rule_of(offer)
    assert (rule.quotes_from_book, rule.continuity) == (True, Continuity.NONE)
    made = adapter_with(adapter, "spot", {symbol: 0}, offer)
    assert made.stream("book", symbol) == made.stream("quotes", symbol)
    assert rows_of(made, frame) == (0, 2)
    assert rows_of(adapter("spot", {symbol: 0}), frame) == (1, 0), "else they are quotes"


def rows_of(adapter: FeedAdapter, frame: str) -> tuple[int, int]:
    """Return how many quotes and levels a frame brings, sent once or, where it repeats, twice."""
    out = ColumnBuffer()
    for _ in range(2 if adapter.venue == "bybit" else 1):
        out.begin(Nobody(), b"")
        assert isinstance(adapter.decode(frame.encode(), START_NS, out), Filtered | None)
    quotes = len(out.kept_quotes) // DEFERRED_WIDTH
    return quotes, out.rows - quotes


@pytest.mark.parametrize(("venue", "depth"), [("okx", 1), ("okx", 5), ("bybit", 1), ("bybit", 50)])
def test_forms_that_only_decode_knows_have_a_queue_of_their_own(venue: str, depth: int) -> None:
    """Shapes would take the best levels for quotes."""
    adapter = adapter_of(venue)
    queues = FrameQueues(load(adapter, "spot").table(), ColumnBuffer())
    (offer,) = [one for one in adapter.markets["spot"].books if one.depth == depth]
    fast, plain = queues.of(adapter, "spot"), queues.of(adapter, "spot", offer)
    assert plain is not fast
    assert plain is queues.of(adapter, "spot", offer)
    assert (plain.taker, plain.counts) == (None, fast.counts)
    assert queues.of(adapter, "spot", adapter.markets["spot"].books[0]) is fast


class Nobody:
    def instruments(self, row_class: object) -> list[int]:
        return []

    def count_refused(self, reason: str) -> None:
        raise AssertionError(reason)


def test_a_recording_of_our_own_has_the_depth_of_its_streams(tmp_path: Path) -> None:
    """Its header names streams, and one connection after the other may have another depth."""
    (instrument,) = [
        one.to_json()
        for one in load(adapter_of("kraken"), "spot").instruments
        if one.symbol == "BTC/USD"
    ]
    lines: list[dict[str, Any]] = [
        {"t": "header", "format": 1, "session": "a" * 32, "venue": "kraken", "ts_ns": START_NS}
    ]
    for number, depth in enumerate((25, 10), 1):
        name = "book" if depth == 10 else f"book-{depth}"
        bids, asks = levels(depth), levels(depth, 1)
        decimals = instrument["price_exponent"], instrument["size_exponent"]
        frame = kraken_book("snapshot", bids, asks, (asks, bids), decimals)
        frame = frame.replace("ETH/USD", "BTC/USD")
        about = {"conn": number, "venue": "kraken", "market": "spot", "url": "wss://x"}
        lines += [
            {"t": "connect", **about, "subscriptions": [["BTC/USD", "book", f"{name}:BTC/USD"]],
             "instruments": [instrument]},
            {"t": "recv", "conn": number, "data": frame},
            {"t": "disconnect", "conn": number, "reason": "test"},
        ]  # fmt: skip
    path = tmp_path / "own.kraken.spot.jsonl"
    with path.open("wb") as file:
        for number, line in enumerate(lines):
            counted = line | {"ts_ns": START_NS + number} | ({"n": number} if number else {})
            file.write(orjson.dumps(counted) + b"\n")
    rows, replay = replayed(path)
    assert len([row for row in rows if row.startswith("level")]) == 70
    assert [row for row in rows if row.startswith(("gap", "refused"))] == [
        "gap level disconnect"
    ] * 2
    assert replay.pipeline.books.statistics() != {}
