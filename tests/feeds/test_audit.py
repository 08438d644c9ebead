"""REST images that books are compared with: how each venue is asked, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
import pytest

from feeds.binance import Binance
from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import Audited, FeedAdapter
from ingestor.columns.buffer import ColumnBuffer
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.book_audit import has_proof, is_audited

BIDS = [("100.5", "2"), ("100.0", "0.25")]
ASKS = [("101.0", "7")]
SEQUENCE = (1 << 35) + 77  # beyond the 32 bits that a mark has


@dataclass(frozen=True)
class Answer:
    """number: what the image names. path, query: how it was asked for."""

    adapter: type[FeedAdapter]
    market: str
    symbol: str
    path: str
    query: Mapping[str, str]
    body: object
    number: int = 0


def sides(bids: str, asks: str, more: tuple[str, ...] = ()) -> dict[str, list[list[str]]]:
    return {
        name: [[*level, *more] for level in some] for name, some in ((bids, BIDS), (asks, ASKS))
    }


ANSWERS = [
    Answer(
        Bybit,
        "linear",
        "BTCUSDT",
        "/v5/market/orderbook",
        {"category": "linear", "symbol": "BTCUSDT", "limit": "25"},
        {
            "retCode": 0,
            "result": {"s": "BTCUSDT", **sides("b", "a"), "ts": 1, "u": 9, "seq": SEQUENCE},
        },
        77,
    ),
    Answer(
        Okx,
        "swap",
        "BTC-USDT-SWAP",
        "/api/v5/market/books",
        {"instId": "BTC-USDT-SWAP", "sz": "25"},
        {"code": "0", "msg": "", "data": [{**sides("bids", "asks", ("0", "3")), "ts": "1"}]},
    ),
    Answer(
        Okx,
        "spot",
        "BTC-USDT",
        "/api/v5/market/books",
        {"instId": "BTC-USDT", "sz": "25"},
        {"code": "0", "data": [{**sides("bids", "asks", ("0", "3")), "ts": "1", "seqId": 35}]},
        35,
    ),
    Answer(
        Binance,
        "usdm",
        "BTCUSDT",
        "/fapi/v1/depth",
        {"symbol": "BTCUSDT", "limit": "50"},
        {"lastUpdateId": 99, "E": 1, "T": 1_750_000_000_000, **sides("bids", "asks")},
        99,
    ),
    Answer(
        Kraken,
        "spot",
        "BTC/USD",
        "/0/public/Depth",
        {"pair": "XBT/USD", "count": "25"},
        {"error": [], "result": {"XXBTZUSD": sides("bids", "asks", ("1750000000",))}},
    ),
    Answer(
        Coinbase,
        "spot",
        "BTC-USD",
        "/api/v3/brokerage/market/product_book",
        {"product_id": "BTC-USD", "limit": "25"},
        {
            "pricebook": {
                "product_id": "BTC-USD",
                "bids": [{"price": price, "size": size} for price, size in BIDS],
                "asks": [{"price": price, "size": size} for price, size in ASKS],
                "time": "2026-11-21T00:00:00Z",
            }
        },
    ),
]
each = pytest.mark.parametrize("answer", ANSWERS, ids=lambda one: one.adapter.venue)


@each
def test_request_and_answer(answer: Answer) -> None:
    feed = answer.adapter(answer.market, {answer.symbol: 0})
    assert isinstance(feed, Audited)
    request = feed.audit_request(answer.symbol, 25)
    assert (request.path, request.query) == (answer.path, answer.query)
    image = feed.decode_audit(answer.symbol, orjson.dumps(answer.body))
    assert (image.number, image.bids, image.asks) == (answer.number, BIDS, ASKS)


@each
def test_an_answer_that_is_none_raises_what_the_auditor_expects(answer: Answer) -> None:
    feed = answer.adapter(answer.market, {answer.symbol: 0})
    assert isinstance(feed, Audited)
    for body in (b"", b"{}", b"[]", b"<html>", b'{"data":[],"result":[],"pricebook":1}'):
        with pytest.raises((LookupError, TypeError, ValueError)):
            feed.decode_audit(answer.symbol, body)


def test_venues_whose_sockets_prove_their_books_are_asked_on_demand_alone() -> None:
    for one in ANSWERS:
        assert is_audited(one.adapter)
        rule = one.adapter.markets[one.market].book
        assert has_proof(rule) == (one.adapter in {Binance, Kraken})


def test_a_book_update_of_bybit_has_the_mark_that_its_images_name() -> None:
    one = instrument("bybit", "spot", "BTCUSDT", "BTC-USDT", "BTC", "USDT", "0.1", "0.01")
    table = InstrumentTable([one])
    feed = Bybit("spot", table.symbols("bybit", "spot"))
    data = {"s": "BTCUSDT", **sides("b", "a"), "u": 5, "seq": SEQUENCE}
    message = {
        "topic": "orderbook.200.BTCUSDT",
        "type": "snapshot",
        "ts": 1,
        "cts": 1_700_000_000_000,
        "data": data,
    }
    payload = orjson.dumps(message)
    buffer = ColumnBuffer()
    buffer.begin(None, payload)  # type: ignore[arg-type]  # nobody asks where it came from
    assert feed.decode(payload, 1, buffer) is None
    assert buffer.seal(table).updates["check_value"].tolist() == [77]
