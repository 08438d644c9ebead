"""KuCoin's handshake over REST, and the book of futures, whose updates have one level each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from feeds.kucoin import Kucoin
from ingestor.adapter import OTHER_BOOK, Handshake, HasHandshake, VenueError
from ingestor.adapter.book_offers import choose, offer_named
from ingestor.app.book_choice import offer_of
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from tests.feeds.fixtures import load
from tests.feeds.harness import TS_RECV, Connection

SERVER: dict[str, Any] = {
    "endpoint": "wss://ws-api-spot.kucoin.com/",
    "encrypt": True,
    "protocol": "websocket",
    "pingInterval": 18000,
    "pingTimeout": 10000,
}


def answer(token: object = "2neAiuYvAU61", servers: object = (SERVER,)) -> bytes:
    return orjson.dumps({"code": "200000", "data": {"token": token, "instanceServers": servers}})


@pytest.mark.parametrize("market", Kucoin.markets)
def test_the_token_is_asked_for_by_post(market: str) -> None:
    assert issubclass(Kucoin, HasHandshake)
    request = Kucoin.handshake_request(market)
    assert (request.path, request.body) == ("/api/v1/bullet-public", b"")
    found = Kucoin.read_handshake(market, answer())
    assert found == Handshake(SERVER["endpoint"], "token=2neAiuYvAU61", 72_000.0)
    assert "2neAiuYvAU61" not in repr(found)


def test_a_refusal_is_an_error_of_the_venue() -> None:
    with pytest.raises(VenueError, match="429000") as refused:
        Kucoin.read_handshake("spot", b'{"code":"429000","msg":"too many requests"}')
    assert refused.value.temporary


@pytest.mark.parametrize(
    "body", [b"", b"{}", answer(token=None), answer(token="\u00e9"), answer(servers=[])]
)
def test_what_is_no_token(body: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        Kucoin.read_handshake("spot", body)


def change(number: int, text: str) -> bytes:
    data = {"sequence": number, "change": text, "timestamp": 1_767_225_600_000}
    topic = "/contractMarket/level2:XBTUSDTM"
    return orjson.dumps({"topic": topic, "type": "message", "subject": "level2", "data": data})


@pytest.mark.parametrize("missing", [None, 2, 3, 4])
def test_each_lost_change_of_a_futures_book_is_found(missing: int | None) -> None:
    fixture = load(Kucoin, "futures")
    table = fixture.table()
    pipeline = Pipeline(table, lambda _: Kucoin.markets["futures"].book)
    queue = pipeline.frame_queues.of(Kucoin, "futures")
    session = Connection(fixture, table, queue.buffer, queue.counts).session
    image = {
        "sequence": 1,
        "asks": [["20", 1]],
        "bids": [["10", 1]],
        "ts": 1_767_225_600_000_000_000,
    }
    assert session.snapshot("XBTUSDTM", orjson.dumps({"code": "200000", "data": image}), TS_RECV)
    gaps = 0
    for number in range(2, 6):
        if number != missing:
            session.receive(change(number, f"{number},buy,{number}"), TS_RECV)
        for batch in pipeline.flush(TS_RECV).batches:
            gaps += int((batch.rows["kind"] == Kind.GAP).sum())
        assert gaps == (missing is not None and number > missing)


@pytest.mark.parametrize(
    ("market", "topic"),
    [("spot", "/spotMarket/level2Depth50"), ("futures", "/contractMarket/level2Depth50")],
)
def test_a_book_of_50_levels_comes_whole_each_time(market: str, topic: str) -> None:
    fixture = load(Kucoin, market)
    table = InstrumentTable(fixture.instruments)
    stream = f"{topic}:{table[0].symbol}"
    offer = offer_named(Kucoin, market, [stream])
    assert offer == Kucoin.markets[market].books[1]
    rule = offer.rule
    assert rule is not None
    pipeline = Pipeline(table, lambda _: rule)
    queue = pipeline.frame_queues.of(Kucoin, market, offer)
    connection = Connection(fixture, table, queue.buffer, queue.counts)
    levels = {"bids": [["9", "1"]], "asks": [["10", "2"], ["11", "3"]]}
    found: list[list[tuple[int, int]]] = []
    for bids in (levels["bids"], [["8", "4"]]):
        data = levels | {"bids": bids, "timestamp": 1_767_225_600_000}
        frame = {"type": "message", "topic": stream, "subject": "level2", "data": data}
        payload = orjson.dumps(frame)
        if not found:
            assert Kucoin(market, {}).streams_of(payload) == (stream,)
            assert connection.adapter.decode(payload, TS_RECV, queue.buffer) is OTHER_BOOK
            choose(connection.adapter, offer)
            assert connection.adapter.stream("book", table[0].symbol) == stream
        connection.session.receive(payload, TS_RECV)
        rows = [row for batch in pipeline.flush(TS_RECV).batches for row in batch.rows]
        found.append([(int(row["kind"]), int(row["side"])) for row in rows])
    level = int(Kind.LEVEL)
    assert sorted(found[0][1:]) == [(level, 1), (level, 2), (level, 2)]
    assert found[1] == [(level, 1), (level, 1)], "one level went, another came"
    assert queue.counts.rejected == 0


def pushed(kind: str, first: int, last: int, bids: list[list[str]]) -> str:
    data = {"s": "BTC-USDT", "M": TS_RECV, "O": first, "C": last, "a": [["91235", "1"]], "b": bids}
    push = {"T": "obu.SPOT", "dp": "increment@10ms", "t": kind, "P": TS_RECV, "d": data}
    return orjson.dumps(push).decode()


def test_a_recorded_book_of_the_unified_account(tmp_path: Path) -> None:
    """It begins on the socket, and a number that is missing breaks it until the next image."""
    frames = [
        pushed("snapshot", 11, 11, [["91234", "1"], ["91233", "2"]]),
        pushed("delta", 12, 14, [["91234", "0"]]),
        pushed("delta", 17, 17, [["91233", "5"]]),  # 15 and 16 are missing
        pushed("snapshot", 20, 20, [["91232", "7"]]),
        pushed("delta", 21, 21, [["91231", "8"]]),
    ]
    url = "wss://x-push-spot.kucoin.com"
    lines: list[dict[str, Any]] = [{"t": "connect", "ts_ns": TS_RECV, "conn": 1, "url": url}]
    lines += [{"t": "recv", "ts_ns": TS_RECV, "conn": 1, "data": frame} for frame in frames]
    path = tmp_path / "one.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    replay = Replay(ReplayOptions((path,)))
    rows = [row for result in replay.results() for batch in result.batches for row in batch.rows]
    assert replay.table[0].key == "kucoin:spot:BTC-USDT"
    kinds = [int(row["kind"]) for row in rows if int(row["kind"]) in {Kind.GAP, Kind.RESET}]
    assert kinds == [Kind.RESET, Kind.GAP, Kind.RESET]
    assert sum(int(row["kind"]) == Kind.LEVEL for row in rows) == 3 + 2 + 2 + 2
    assert not any(one.rejected for one in replay.counts.values())


def test_nothing_asks_for_a_form_that_recordings_alone_have() -> None:
    market = Kucoin.markets["spot"]
    with pytest.raises(ConfigError, match="no book of 500 levels"):
        offer_of(market, "kucoin spot", 500, None, "x")
