"""REST answers that are odd: each costs its own request alone, and proves nothing of a book."""

from __future__ import annotations

from itertools import pairwise

import orjson
import pytest

from ingestor.adapter import Audited, FeedAdapter
from ingestor.books import rest_check
from ingestor.books.book import BookState
from ingestor.columns.sealing import SNAPSHOT_REASON
from ingestor.model.errors import MALFORMED, DecodeError
from tests.feeds.fixtures import Step, load, markets
from tests.feeds.harness import TS_RECV, Connection
from tests.feeds.hostile import mutants
from tests.feeds.test_audit import ANSWERS, Answer

ODD = (
    *(b"", b" ", b"<html><body>503</body></html>", b"\xff\xfe", b"[" * 3_000, b'{"a":' * 3_000),
    *(b"[]", b"{}", b"null", b"0", b'"x"', b"[[]]", b"[{}]", b'{"data":[]}', b'{"data":null}'),
    b'{"code":-1121,"msg":"Invalid symbol."}',
    b'{"code":"51001","msg":"Instrument ID does not exist","data":[]}',
    b'{"retCode":10001,"retMsg":"params error","result":{}}',
    b'{"error":["EQuery:Unknown asset pair"]}',
    b'{"error":"NOT_FOUND","error_details":"valid product_id is required"}',
)
FORESEEN = (DecodeError, *MALFORMED)

each_audit = pytest.mark.parametrize(
    "answer", ANSWERS, ids=lambda one: f"{one.adapter.venue}_{one.market}"
)


def image_of(answer: Answer, body: bytes) -> BookState:
    feed = answer.adapter(answer.market, {answer.symbol: 0})
    assert isinstance(feed, Audited)
    return rest_check.read(feed.decode_audit(answer.symbol, body), 1, 2)


@each_audit
def test_an_odd_image_is_refused_or_can_be_a_book(answer: Answer) -> None:
    good = orjson.dumps(answer.body)
    number, bids, asks = image_of(answer, good)
    assert (len(bids), len(asks)) == (2, 1)
    refused = 0
    for mutant in mutants(good):
        try:
            number, bids, asks = image_of(answer, mutant.payload)
        except FORESEEN:
            refused += 1
            continue
        where = mutant.field, mutant.token
        assert type(number) is int, where
        assert number >= 0, where
        assert bids[-1][0] > 0 > asks[0][0], where
        for side in (bids, asks):
            assert all(size > 0 for _, size in side), where
            assert all(better[0] > worse[0] for better, worse in pairwise(side)), where
    assert refused > 100


@each_audit
@pytest.mark.parametrize("body", ODD, ids=lambda body: repr(body[:12]))
def test_what_is_no_image_is_refused(answer: Answer, body: bytes) -> None:
    with pytest.raises(FORESEEN):
        image_of(answer, body)


@pytest.mark.parametrize(
    ("venue", "before", "after"),
    [
        ("bybit", b'"s":"BTCUSDT"', b'"s":"ETHUSDT"'),
        ("bybit", b'"retCode":0', b'"retCode":10006'),
        ("okx", b'"code":"0"', b'"code":"50011"'),
        ("okx", b'"2","0","3"', b'"2","0"'),
        ("okx", b'"2","0","3"', b'"2","0","3","4"'),
        ("kraken", b'"error":[]', b'"error":["EService:Busy"]'),
        ("kraken", b'"XXBTZUSD":', b'"XETHZUSD":{},"XXBTZUSD":'),
        ("coinbase", b'"product_id":"BTC-USD"', b'"product_id":"ETH-USD"'),
    ],
)
def test_errors_other_symbols_and_levels_of_other_lengths_are_refused(
    venue: str, before: bytes, after: bytes
) -> None:
    answers = [answer for answer in ANSWERS if answer.adapter.venue == venue]
    for answer in answers:
        good = orjson.dumps(answer.body)
        assert before in good
        with pytest.raises(FORESEEN):
            image_of(answer, good.replace(before, after, 1))


def seeded() -> list[tuple[type[FeedAdapter], str, Step]]:
    """Return a good REST image of each market that has one in its fixture."""
    found = []
    for adapter, market in markets():
        steps = [one for one in load(adapter, market).steps if one.verb == "snapshot"]
        found += [(adapter, market, step) for step in steps if step.outcome == "expect"][:1]
    return found


SEEDED = [pytest.param(*one, id=f"{one[0].venue}_{one[1]}") for one in seeded()]


@pytest.mark.parametrize(("adapter", "market", "step"), SEEDED)
def test_an_odd_seed_costs_itself_alone(
    adapter: type[FeedAdapter], market: str, step: Step
) -> None:
    connection = Connection(load(adapter, market))
    session, buffer = connection.session, connection.buffer
    for body in ODD:
        assert not session.snapshot(step.symbol, body, TS_RECV)
    assert session.snapshot(step.symbol, step.payload, TS_RECV)
    sealed = buffer.seal(connection.table)
    assert not sealed.bugs
    assert [rejected.payload for rejected in sealed.rejected] == list(ODD)
    assert {rejected.reason for rejected in sealed.rejected} == {SNAPSHOT_REASON}
    assert not any(rejected.is_frame for rejected in sealed.rejected)
    assert len(sealed.updates) == 1
    connection.counts.seal()
    assert connection.counts.unaccounted == 0


@pytest.mark.parametrize(
    ("venue", "before", "after"),
    [
        ("binance_coinm", b'"symbol":"BTCUSD_PERP"', b'"symbol":"ETHUSD_PERP"'),
        ("kucoin_futures", b'"symbol":"XBTUSDTM"', b'"symbol":"ETHUSDTM"'),
        ("kucoin_futures", b'"code":"200000"', b'"code":"429000"'),
        ("okx_spot", b'"code":"0"', b'"code":"50011"'),
    ],
)
def test_a_seed_of_another_symbol_or_with_an_error_is_refused(
    venue: str, before: bytes, after: bytes
) -> None:
    [(adapter, market, step)] = [one for one in seeded() if f"{one[0].venue}_{one[1]}" == venue]
    body = step.payload.replace(b" ", b"")
    assert before in body
    connection = Connection(load(adapter, market))
    assert not connection.session.snapshot(step.symbol, body.replace(before, after), TS_RECV)


def test_levels_of_other_lengths_refuse_their_frame_alone() -> None:
    adapter, market, _ = next(one for one in seeded() if one[0].venue == "okx")
    good = [
        step.payload
        for step in load(adapter, market).steps
        if step.verb == "frame" and step.outcome == "expect" and b'"books"' in step.payload
    ]
    frame = next(payload for payload in good if b'"snapshot"' in payload)
    message = orjson.loads(frame)
    for change in (lambda level: level[:3], lambda level: [*level, "0"]):
        data = message["data"][0]
        odd = orjson.dumps(
            message | {"data": [data | {"bids": [change(data["bids"][0]), *data["bids"][1:]]}]}
        )
        connection = Connection(load(adapter, market))
        connection.session.receive(odd, TS_RECV)
        connection.session.receive(frame, TS_RECV)
        sealed = connection.buffer.seal(connection.table)
        assert [rejected.payload for rejected in sealed.rejected] == [odd]
        assert len(sealed.updates) == 1
