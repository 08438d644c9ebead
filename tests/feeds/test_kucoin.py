"""KuCoin's handshake over REST, and the book of futures, whose updates have one level each."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from feeds.kucoin import Kucoin
from ingestor.adapter import Handshake, HasHandshake, VenueError
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import Pipeline
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
