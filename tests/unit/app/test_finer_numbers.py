"""Numbers finer than the metadata: several widen an instrument, an absurd one widens nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from feeds.bybit import Bybit
from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import FeedAdapter
from ingestor.app.finer_numbers import DISTINCT_MIN, PROBES_MAX
from ingestor.app.instrument_revisions import Revisions
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Rejected
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable
from ingestor.sources.rest.catalog import CatalogSettings
from ingestor.sources.rest.pool import RestPools
from tests.feeds.fixtures import load


def okx_trade(symbol: str, price: str, size: str = "1") -> bytes:
    trade = {"instId": symbol, "tradeId": "1", "px": price, "sz": size, "side": "buy"}
    trade |= {"ts": "1763723460118", "count": "1"}
    return json.dumps({"arg": {"channel": "trades", "instId": symbol}, "data": [trade]}).encode()


def bybit_trade(symbol: str, price: str, size: str = "1") -> bytes:
    trade = {"T": 1763723460118, "s": symbol, "S": "Buy", "v": size, "p": price}
    trade |= {"L": "PlusTick", "i": "20f43950-d8dd-5b31-9112-a178eb6023af", "BT": False}
    trade |= {"seq": 1783284617}
    message = {"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": 1763723460118}
    return json.dumps(message | {"data": [trade]}).encode()


def kraken_trade(symbol: str, price: str, size: str = "1") -> bytes:
    text = (
        '{"channel":"trade","type":"update","data":[{"symbol":"%s","side":"buy","price":%s,"qty":%s,'
        '"ord_type":"limit","trade_id":1,"timestamp":"2026-11-21T10:00:00.000000Z"}]}'
    )
    return (text % (symbol, price, size)).encode()


VENUES = [
    pytest.param(Okx, "swap", "BTC-USDT-SWAP", okx_trade, id="okx"),
    pytest.param(Bybit, "linear", "BTCUSDT", bybit_trade, id="bybit"),
    pytest.param(Kraken, "spot", "BTC/USD", kraken_trade, id="kraken"),
]
each_venue = pytest.mark.parametrize(("adapter", "market", "symbol", "trade"), VENUES)


class Bench:
    """One market's table, and a session whose frames are decoded and sealed."""

    def __init__(self, adapter: type[FeedAdapter], market: str) -> None:
        self.table = InstrumentTable(load(adapter, market).instruments)
        self.adapter, self.market = adapter, market
        self.now_s = 1_000.0
        self.revisions = Revisions(
            self.table,
            RestPools(),
            CatalogSettings(Path("/nowhere"), 0.0),
            {},
            lambda: self.now_s,
        )

    def refuse(self, payload: bytes) -> Rejected:
        """Send a frame that must be refused for a number; the revisions hear of it."""
        symbols = self.table.symbols(self.adapter.venue, self.market)
        buffer = ColumnBuffer()
        feed = self.adapter(self.market, symbols)
        session = Session(1, feed, (), buffer, FrameCounts(), SessionEvents(), self.market)
        session.receive(payload, 1)
        (rejected,) = buffer.seal(self.table).rejected
        assert rejected.reason == "bad_number"
        self.revisions.suspects([rejected])
        return rejected

    def confirm(self) -> dict[int, int]:
        """The venue's list says what it said before."""
        with capture_logs():
            return self.revisions.revise(load(self.adapter, self.market).instruments)

    def exponents(self, symbol: str) -> tuple[int, int]:
        number = self.table.symbols(self.adapter.venue, self.market)[symbol]
        return self.table[number].price_exponent, self.table[number].size_exponent


@pytest.mark.rows("I2")
@each_venue
def test_numbers_that_stay_finer_widen_their_instrument(
    adapter: type[FeedAdapter], market: str, symbol: str, trade: Callable[..., bytes]
) -> None:
    bench = Bench(adapter, market)
    price, size = bench.exponents(symbol)
    finer = "0" * price + "1"
    bench.refuse(trade(symbol, f"100.{finer}"))
    assert bench.confirm() == {}, "one number is no evidence"
    for number in range(101, 101 + DISTINCT_MIN):
        bench.refuse(trade(symbol, f"{number}.{finer}"))
    assert len(bench.confirm()) == 1
    assert bench.exponents(symbol) == (price + 1, size)
    assert bench.confirm() == {}, "the list does not take it back"
    assert len(bench.table) == len(load(adapter, market).instruments) + 1


@each_venue
def test_finer_sizes_widen_too(
    adapter: type[FeedAdapter], market: str, symbol: str, trade: Callable[..., bytes]
) -> None:
    bench = Bench(adapter, market)
    price, size = bench.exponents(symbol)
    for number in range(1, 1 + DISTINCT_MIN):
        bench.refuse(trade(symbol, "100", f"{number}.{'0' * size}1"))
    bench.confirm()
    assert bench.exponents(symbol) == (price, size + 1)


@pytest.mark.rows("I2")
@each_venue
def test_one_absurd_number_widens_nothing(
    adapter: type[FeedAdapter], market: str, symbol: str, trade: Callable[..., bytes]
) -> None:
    bench = Bench(adapter, market)
    before = bench.exponents(symbol)
    for _ in range(PROBES_MAX):  # however often it comes
        bench.refuse(trade(symbol, "90000.123456789012345678"))
    assert bench.confirm() == {}
    assert bench.exponents(symbol) == before


@each_venue
def test_numbers_that_int64_cannot_hold_widen_nothing(
    adapter: type[FeedAdapter], market: str, symbol: str, trade: Callable[..., bytes]
) -> None:
    bench = Bench(adapter, market)
    for number in range(5):
        bench.refuse(trade(symbol, f"9000{number}.123456789012345678"))
    assert bench.confirm() == {}


def test_an_absurd_one_among_finer_ones_does_not_decide() -> None:
    bench = Bench(Okx, "swap")
    bench.refuse(okx_trade("BTC-USDT-SWAP", "100.123456789"))
    for number in range(3):
        bench.refuse(okx_trade("BTC-USDT-SWAP", f"10{number}.12"))
    bench.confirm()
    assert bench.exponents("BTC-USDT-SWAP")[0] == 2


def test_a_list_with_another_tick_goes_before_the_evidence() -> None:
    bench = Bench(Okx, "swap")
    for number in range(3):
        bench.refuse(okx_trade("BTC-USDT-SWAP", f"10{number}.123"))
    first, *others = load(Okx, "swap").instruments
    revised = replace(first, tick_size="0.01", price_exponent=2)
    with capture_logs() as logs:
        bench.revisions.revise([revised, *others])
    assert bench.exponents("BTC-USDT-SWAP")[0] == 2
    (line,) = logs
    assert (line["tick_size"], line["price_exponent"]) == ("0.1 -> 0.01", "1 -> 2")


def test_evidence_is_bounded() -> None:
    bench = Bench(Okx, "swap")
    for _ in range(PROBES_MAX):
        bench.refuse(okx_trade("BTC-USD-SWAP", "100.15"))
    for number in range(3):
        bench.refuse(okx_trade("BTC-USDT-SWAP", f"10{number}.12"))
    assert bench.confirm() == {}
    bench.now_s += 61.0
    for number in range(3):
        bench.refuse(okx_trade("BTC-USDT-SWAP", f"10{number}.12"))
    assert len(bench.confirm()) == 1
