"""What venues document and rarely send, in recordings of a few frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from ingestor.sources.replay.replay import Replay
from tests.feeds.truth import replayed

START_NS = 1_750_000_000_500_000_000


def replay_of(
    folder: Path, venue: str, market: str, *frames: dict[str, Any]
) -> tuple[list[str], Replay]:
    """Replay frames of one connection, 1 ns apart; return rows in words as `replayed` has them."""
    lines: list[dict[str, Any]] = [
        {"t": "connect", "ts_ns": START_NS, "conn": "c", "url": "wss://x"}
    ]
    for number, frame in enumerate(frames, 1):
        text = orjson.dumps(frame).decode()
        if "lastUpdateId" in frame:
            url = "/api/v3/depth?symbol=ETHUSDT"
            lines.append({"t": "http", "ts_ns": START_NS, "url": url, "data": text})
        else:
            line = {"t": "recv", "ts_ns": START_NS + number, "conn": "c", "data": text}
            lines.append(line)
    path = folder / f"frames.{venue}.{market}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return replayed(path)


def filtered(replay: Replay) -> dict[str, int]:
    """Return how many frames each rule left out."""
    (counts,) = replay.counts.values()
    return dict(counts.filtered_by_rule)


MS = 1_750_000_000_123
US = 1_750_000_000_123_456


def spot_trade(number: int, time: int) -> dict[str, Any]:
    return {
        "e": "trade",
        "E": time,
        "s": "ETHUSDT",
        "t": number,
        "p": "20.5",
        "q": "2",
        "T": time,
        "m": False,
    }


def spot_depth(first: int, time: int) -> dict[str, Any]:
    return {
        "e": "depthUpdate",
        "E": time,
        "s": "ETHUSDT",
        "U": first,
        "u": first,
        "b": [["20.5", "3"]],
        "a": [],
    }


@pytest.mark.parametrize("times", [(MS, MS), (US, US), (MS, US), (US, MS)])
def test_binance_spot_times_in_both_units(tmp_path: Path, times: tuple[int, int]) -> None:
    """`timeUnit=MICROSECOND` in the address changes the times of all that a connection brings."""
    image = {"lastUpdateId": 40, "bids": [["20.5", "2"]], "asks": [["21.0", "4"]]}
    frames = [spot_trade(7, times[0]), spot_trade(8, times[1])]
    frames += [spot_depth(41, times[0]), spot_depth(42, times[1])]
    path = tmp_path / "frames.binance.spot.jsonl"
    rows, _ = replay_of(tmp_path, "binance", "spot", image, *frames)
    assert [row for row in rows if row.startswith("refused") or "gap" in row] == []
    found = sorted(
        int(row["ts_event"])
        for result in Replay(options(path)).results()
        for batch in result.batches
        for row in batch.rows
        if row["ts_event"] != row["ts_recv"]
    )
    assert found == sorted([time * (1_000 if time == US else 1_000_000) for time in times] * 2)


def options(path: Path) -> Any:
    from ingestor.sources.replay.options import ReplayOptions

    return ReplayOptions((path,), venue="binance", market="spot")


@pytest.mark.parametrize("time", [MS // 1_000, MS * 10, US // 10, US * 10, US * 1_000])
def test_binance_spot_times_of_no_unit_are_refused(tmp_path: Path, time: int) -> None:
    frames = [spot_trade(7, time), spot_depth(41, time), spot_trade(8, MS)]
    rows, _ = replay_of(tmp_path, "binance", "spot", *frames)
    assert [row for row in rows if row.startswith("trade")] == ["trade 8 bid 20.5 2"]
    assert rows.count("refused malformed") == 2


@pytest.mark.parametrize(
    ("venue", "market", "frame"),
    [
        ("binance", "spot", {"e": "blockTrade", "s": "ETHUSDT", "p": "1", "q": "2"}),
        ("binance", "spot", {"e": "referencePrice", "s": "ETHUSDT", "r": "1"}),
        ("binance", "usdm", {"stream": "tradingSession", "data": {"e": "EquityUpdate"}}),
        ("binance", "usdm", {"stream": "tradingSession", "data": {"e": "CommodityUpdate"}}),
        ("binance", "usdm", {"stream": "tradingSession", "data": {"e": "HK_EquityUpdate"}}),
        ("okx", "spot", {"arg": {"channel": "books-rpi", "instId": "ETH-USDT"}, "data": [{}]}),
        ("okx", "spot", {"arg": {"channel": "books-elp", "instId": "ETH-USDT"}, "data": [{}]}),
        ("okx", "spot", {"arg": {"channel": "books-l2-tbt", "instId": "E"}, "data": [{}]}),
        ("okx", "swap", {"arg": {"channel": "adl-warning", "instType": "SWAP"}, "data": [{}]}),
        ("okx", "spot", {"arg": {"channel": "economic-calendar"}, "data": [{}]}),
        ("okx", "spot", {"event": "channel-conn-count-error", "channel": "x", "connId": "1"}),
        ("bybit", "linear", {"topic": "adlAlert.USDT", "data": [{}]}),
        ("bybit", "linear", {"topic": "priceLimit.ETHUSDT", "data": {}}),
        ("bybit", "linear", {"topic": "insurance.USDT", "data": []}),
        (
            "coinbase",
            "spot",
            {"channel": "user", "sequence_num": 0, "events": [{}]},
        ),
    ],
)
def test_documented_events_that_nobody_asked_for_are_ignored(
    tmp_path: Path, venue: str, market: str, frame: dict[str, Any]
) -> None:
    rows, replay = replay_of(tmp_path, venue, market, frame)
    assert rows == []
    assert replay.problems.kept == []


def okx_book(action: str, number: int, before: int, bid: str, ask: str) -> dict[str, Any]:
    update = {
        "bids": [[bid, "2", "0", "1"]],
        "asks": [[ask, "4", "0", "1"]],
        "checksum": 0,
        "ts": str(MS),
        "seqId": number,
        "prevSeqId": before,
    }
    argument = {"channel": "books", "instId": "ETH-USDT"}
    return {"arg": argument, "action": action, "data": [update]}


def test_okx_books_may_cross_before_an_auction(tmp_path: Path) -> None:
    """The best ask below the best bid is no sign of a lost update there."""
    rows, _ = replay_of(
        tmp_path,
        "okx",
        "spot",
        okx_book("snapshot", 8, -1, "22.0", "21.0"),
        okx_book("update", 9, 8, "22.5", "20.0"),
        okx_book("update", 11, 10, "22.5", "20.0"),  # and a lost one still is
    )
    assert rows == [
        "reset level",
        "level 8 bid 22.0 2",
        "level 8 ask 21.0 4",
        "level 9 bid 22.5 2",
        "level 9 ask 20.0 4",
        "gap level sequence 10 10",
    ]
