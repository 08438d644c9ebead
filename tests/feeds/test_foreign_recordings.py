"""What a fixture holds, recorded by others: no header, no list of instruments, no requests."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from feeds.gateio import adapter as Gate
from ingestor.adapter import FeedAdapter, TellsMarkets
from ingestor.adapter.addresses import markets_at
from ingestor.adapter.book_offers import adapter_with
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from tests.feeds.fixtures import load, markets

TS_NS = 1_800_000_000_000_000_000
# A book's events become levels, where its image came on the socket; a venue's status is of all
# instruments, of which a recording shows some.
KINDS = {one.kind_name for one in ROW_CLASSES} - {"level", "quote", "instrument_status"}


def recorded(adapter: type[FeedAdapter], market: str, path: Path) -> Counter[str]:
    """Write the accepted frames of a fixture; return its rows by kind."""
    fixture = load(adapter, market)
    url = adapter.markets[market].endpoints[0].url
    lines: list[dict[str, Any]] = [{"t": "connect", "ts_ns": TS_NS, "conn": "c", "url": url}]
    rows = Counter[str]()
    for step in fixture.steps:
        if step.verb == "connect":
            lines.append(lines[0] | {"ts_ns": TS_NS + len(lines)})
        if step.verb == "frame" and step.outcome != "rejected":
            try:
                text = {"data": step.payload.decode()}
            except UnicodeDecodeError:
                text = {"b64": base64.b64encode(step.payload).decode()}
            lines.append({"t": "recv", "ts_ns": TS_NS + len(lines), "conn": "c", **text})
            if step.outcome == "expect":
                rows.update(row["kind"] for row in step.wanted)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows


VENUES = [pair for pair in markets() if pair[0].venue != "simulated"]  # which has no address


@pytest.mark.parametrize(("adapter", "market"), VENUES)
def test_a_recording_without_a_header_is_read(
    adapter: type[FeedAdapter], market: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    wanted = recorded(adapter, market, path)
    shared = len(markets_at(adapter, adapter.markets[market].endpoints[0].url)) > 1
    is_told = not shared or issubclass(adapter, TellsMarkets)
    found = audit(Replay(ReplayOptions((path,), market="" if is_told else market)))
    assert (found["rejected"], found["unaccounted"], found["problems"]) == (0, 0, 0)
    told = found["rows"]
    for kind in KINDS & wanted.keys():
        repeated = found["duplicate_rows"]
        assert told[kind] + repeated >= wanted[kind], f"{wanted[kind]} of {kind} were recorded"
    assert bool(told["quote"]) >= bool(wanted["quote"])
    if wanted["update"]:  # an image over REST is missing: its updates wait, and are counted
        assert told["level"] or found["held_rows"], "the book is neither there nor told of"


def gate_update(market: str, first: int, last: int, bid: tuple[str, object]) -> str:
    price, size = bid
    level: object = [price, size] if market == "spot" else {"p": price, "s": size}
    result = {"t": TS_NS // 10**6, "s": "BTC_USDT", "U": first, "u": last, "b": [level], "a": []}
    family = "spot" if market == "spot" else "futures"
    channel = f"{family}.order_book_update"
    return json.dumps({"time": 1, "channel": channel, "event": "update", "result": result})


@pytest.mark.parametrize("market", ["spot", "usdt"])
def test_a_book_that_begins_over_rest(market: str, tmp_path: Path) -> None:
    """Gate's `order_book_update`, where our own connections have another channel."""
    described = Gate.markets[market]
    offer = next(one for one in described.books if one.rule is not None)
    names = adapter_with(Gate, market, {"BTC_USDT": 0}, offer)
    request = names.snapshot_request("BTC_USDT")
    assert request is not None
    body: dict[str, Any] = {"id": 10, "bids": [["90", "1"]], "asks": [["91", "2"]]}
    body |= {"current": TS_NS // 10**6, "update": TS_NS // 10**6}
    if market != "spot":
        body = {"id": 10, "bids": [{"p": "90", "s": 1}], "asks": [{"p": "91", "s": 2}]}
        body |= {"current": 1_800_000_000.123, "update": 1_800_000_000.121}
    url = f"{described.rest_url}{request.path}?{urlencode(request.query)}"
    connection = {"ts_ns": TS_NS, "conn": "c"}
    lines = [
        {"t": "connect", **connection, "url": described.endpoints[0].url},
        {"t": "recv", **connection, "data": gate_update(market, 8, 9, ("89", "5"))},
        {"t": "recv", **connection, "data": gate_update(market, 10, 12, ("90", "0"))},
        {"t": "http", "ts_ns": TS_NS, "url": url, "data": json.dumps(body)},
        {"t": "recv", **connection, "data": gate_update(market, 13, 13, ("88", "7"))},
        {"t": "recv", **connection, "data": gate_update(market, 16, 17, ("87", "7"))},
    ]
    path = tmp_path / "one.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = audit(Replay(ReplayOptions((path,))))
    assert (found["rejected"], found["unaccounted"], found["problems"]) == (0, 0, 0)
    assert (found["resets"], found["gaps"]) == (1, 1), "numbers 14 and 15 are missing"
    assert found["rows"]["level"] == 2 + 1 + 1


def test_whole_books_of_a_depth_that_is_not_ours(tmp_path: Path) -> None:
    """Crypto.com's snapshots of 150 levels: what differs from the one before is published."""

    def image(number: int, bids: list[list[str]]) -> str:
        book = {"bids": bids, "asks": [["91", "2", "1"]], "t": TS_NS // 10**6, "u": number}
        names = {"instrument_name": "BTC_USD", "subscription": "book.BTC_USD.150"}
        result = {**names, "channel": "book", "depth": 150, "data": [book]}
        return json.dumps({"id": -1, "method": "subscribe", "code": 0, "result": result})

    frames = [
        image(5, [["90", "1", "1"], ["89", "2", "1"]]),
        image(6, [["90", "3", "1"], ["89", "2", "1"]]),
        image(7, [["89", "2", "1"]]),
    ]
    url = "wss://stream.crypto.com/exchange/v1/market"
    lines: list[dict[str, Any]] = [{"t": "connect", "ts_ns": TS_NS, "conn": "c", "url": url}]
    lines += [{"t": "recv", "ts_ns": TS_NS, "conn": "c", "data": frame} for frame in frames]
    path = tmp_path / "one.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = audit(Replay(ReplayOptions((path,))))
    assert (found["rejected"], found["gaps"], found["resets"]) == (0, 0, 1)
    assert found["rows"]["level"] == 3 + 1 + 1
    assert found["rows"]["quote"] == 3
