"""Lists with an odd entry, on every market's fixture: the entry is left out, its siblings stand."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import FeedAdapter, Listing
from ingestor.adapter.instrument_list import InstrumentList, entries_of, read_entries, read_list
from ingestor.model.errors import DecodeError, VenueError
from ingestor.model.instruments import Instrument, InstrumentTable, check_instrument
from tests.feeds.fixtures import adapters, load, markets

AdapterType = type[FeedAdapter]
MARKETS = [pytest.param(*pair, id=f"{pair[0].venue}_{pair[1]}") for pair in markets()]
each_market = pytest.mark.parametrize(("adapter", "market"), MARKETS)

ABSENT = object()
BOMBS: list[Any] = [
    ABSENT, None, "", " ", "0", "-1", "-0.1", "NaN", "Infinity", "1e-30", "1e30", "1e999999999",
    "9" * 20, "9" * 5_000, "1_000", "0x10", "\u0663", "abc", "a\nb", "\x00", "\u202e",
    "x" * 1_000_000, 0, -1, 10**9, 10**18, 2**63, 10**20, 0.5, -0.0, float("1e300"), True, False,
    [], [[]], {}, {"": {}},
]  # fmt: skip
FAULTS = [RuntimeError("x"), OSError(5, "x"), StopIteration(), ArithmeticError("x"), MemoryError()]


def entries(adapter: AdapterType, market: str) -> list[Any]:
    """Return fresh copies of the fixture's entries that trade or are halted."""
    found = [
        one for body in load(adapter, market).rest for one in entries_of(adapter, market, body)
    ]
    return copy.deepcopy([one for one in found if adapter.listing(market, one) is not None])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each member of an entry, containers included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in inner:
        yield (*path, key)
        if isinstance(member, (dict, list)):
            yield from places(member, (*path, key))


def changed(entry: Any, path: tuple[Any, ...], bomb: Any) -> Any:
    result = copy.deepcopy(entry)
    holder = result
    for key in path[:-1]:
        holder = holder[key]
    if bomb is ABSENT:
        del holder[path[-1]]
    else:
        holder[path[-1]] = bomb
    return result


def check(found: InstrumentList, siblings: InstrumentList) -> None:
    """Assert that the siblings stand, and that what was read of the odd entry can be held."""
    for symbol, instrument in siblings.trading.items():
        assert found.trading[symbol] == instrument
    for symbol in siblings.halted:
        assert symbol in found.halted
    table = InstrumentTable()
    for instrument in found.instruments:
        table.add(check_instrument(instrument))
        assert Instrument.from_json(json.loads(json.dumps(instrument.to_json()))) == instrument
    for entry in found.unreadable:
        assert entry.reason.isprintable()
        assert 0 < len(entry.reason) < 500


@pytest.mark.rows("I3")
@each_market
def test_each_field_odd(adapter: AdapterType, market: str) -> None:
    """One member of one entry at a time is replaced by each bomb, or taken away."""
    original = entries(adapter, market)
    victim, others = original[0], original[1:]
    siblings = read_entries(adapter, market, others)
    left_out = 0
    for path in places(victim):
        for bomb in BOMBS:
            found = read_entries(adapter, market, [changed(victim, path, bomb), *others])
            check(found, siblings)
            left_out += len(found.unreadable)
    assert left_out > len(BOMBS), "the bombs hit something"


@pytest.mark.rows("I3")
@each_market
@pytest.mark.parametrize("odd", [None, 7, "text", [], [1], {}, {"symbol": 5}, True], ids=repr)
def test_an_entry_that_is_none(adapter: AdapterType, market: str, odd: Any) -> None:
    original = entries(adapter, market)
    found = read_entries(adapter, market, [odd, *original, odd])
    check(found, read_entries(adapter, market, original))
    assert [entry.symbol for entry in found.unreadable] in ([], [""] * 2)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("method", ["listing", "parse_instrument"])
def test_whatever_an_adapter_raises_for_an_entry(fault: Exception, method: str) -> None:
    """Also a third party's, whose exception has no text."""

    class Acme(Okx):
        @classmethod
        def _fail(cls, entry: Any) -> None:
            if entry["instId"] == "BTC-USD-SWAP":
                raise fault

        @classmethod
        def listing(cls, market: str, entry: Any) -> Listing | None:
            if method == "listing":
                cls._fail(entry)
            return super().listing(market, entry)

        @classmethod
        def parse_instrument(cls, market: str, entry: Any) -> Instrument:
            if method == "parse_instrument":
                cls._fail(entry)
            return super().parse_instrument(market, entry)

    found = read_list(Acme, "swap", load(Okx, "swap").rest)
    assert "BTC-USDT-SWAP" in found.trading
    (left_out,) = found.unreadable
    assert type(fault).__name__ in left_out.reason
    assert left_out.symbol == ("" if method == "listing" else "BTC-USD-SWAP")
    assert "BTC-USD-SWAP" in left_out.symbol + left_out.reason or method == "listing"


def test_what_an_adapter_returns_is_checked() -> None:
    class Acme(Okx):
        @classmethod
        def parse_instrument(cls, market: str, entry: Any) -> Any:
            return (
                entry
                if entry["instId"] == "BTC-USD-SWAP"
                else super().parse_instrument(market, entry)
            )

        @classmethod
        def listing(cls, market: str, entry: Any) -> Any:
            found = super().listing(market, entry)
            return ("x", True, "live") if entry["instId"] == "BTC-USDT-SWAP" else found

    found = read_list(Acme, "swap", load(Okx, "swap").rest)
    assert {"BTC-USDT-SWAP", "BTC-USD-SWAP"}.isdisjoint(found.trading)
    assert len(found.unreadable) == 2


@pytest.mark.rows("I3")
@pytest.mark.parametrize("adapter", adapters(), ids=lambda adapter: adapter.venue)
@pytest.mark.parametrize(
    "body", [b"", b"<html>busy</html>", b"null", b"7", b"[]", b'""', b"{}", b'{"data":7}', b"\xff"]
)
def test_an_answer_without_a_list(adapter: AdapterType, body: bytes) -> None:
    market = next(iter(adapter.markets))
    with pytest.raises(DecodeError, match=f"instrument list of {market}"):
        read_list(adapter, market, [body])


@pytest.mark.rows("I3")
def test_an_adapter_that_yields_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Acme(Okx):
        @classmethod
        def instrument_entries(cls, market: str, body: bytes) -> Iterator[Any]:
            while True:
                yield {}

    monkeypatch.setattr("ingestor.adapter.instrument_list.ENTRIES_MAX", 1_000)
    assert len(read_list(Acme, "swap", [b""]).unreadable) == 1_000


BINANCE = next(adapter for adapter in adapters() if adapter.venue == "binance")
ERRORS = [
    (Okx, "spot", '{"code":"50011","msg":"Too Many Requests","data":[]}', "50011", True),
    (Okx, "swap", '{"code":"51000","msg":"Parameter instType error","data":[]}', "51000", False),
    (Bybit, "linear", '{"retCode":10006,"retMsg":"Too many visits.","result":{}}', "10006", True),
    (Bybit, "spot", '{"retCode":10001,"retMsg":"Illegal category","result":{}}', "10001", False),
    (Kraken, "spot", '{"error":["EService:Unavailable"]}', "EService", True),
    (Kraken, "spot", '{"error":["EGeneral:Too many requests"]}', "EGeneral", True),
    (Kraken, "spot", '{"error":["EQuery:Unknown asset pair"]}', "EQuery", False),
    (BINANCE, "spot", '{"code":-1003,"msg":"Way too many requests."}', "-1003", True),
    (BINANCE, "usdm", '{"code":-1121,"msg":"Invalid symbol."}', "-1121", False),
    (
        BINANCE,
        "coinm",
        '{"code":0,"msg":"Service unavailable"}',
        "0",
        False,
    ),
    (Coinbase, "spot", '{"error":"UNAVAILABLE","message":"try again"}', "UNAVAILABLE", True),
    (Coinbase, "spot", '{"error":"NOT_FOUND","error_details":"no"}', "NOT_FOUND", False),
]


@pytest.mark.rows("I3")
@pytest.mark.parametrize(("adapter", "market", "body", "code", "temporary"), ERRORS)
def test_an_error_inside_an_answer_has_code_and_text(
    adapter: AdapterType, market: str, body: str, code: str, temporary: bool
) -> None:
    with pytest.raises(VenueError) as caught:
        read_list(adapter, market, [body.encode()])
    assert (caught.value.code, caught.value.temporary) == (code, temporary)
    assert caught.value.text
    assert str(caught.value).startswith(f"{adapter.venue}: error {code}: ")


def test_a_warning_of_kraken_is_no_error() -> None:
    answer = json.loads(load(Kraken, "spot").rest[0]) | {"error": ["WGeneral:Maintenance soon"]}
    found = read_list(Kraken, "spot", [json.dumps(answer).encode()])
    assert found.instruments == load(Kraken, "spot").instruments


@each_market
def test_a_symbol_that_is_listed_twice_counts_once(adapter: AdapterType, market: str) -> None:
    original = entries(adapter, market)
    trading = [one for one in original if adapter.listing(market, one).trading]  # type: ignore[union-attr]
    found = read_entries(adapter, market, original + trading)
    once = read_entries(adapter, market, original)
    assert found == once, "pages may overlap"


def test_a_symbol_that_is_listed_twice_and_differs_is_told() -> None:
    first, *_ = entries(Okx, "swap")
    found = read_entries(Okx, "swap", [first, first | {"tickSz": "5"}])
    assert [one.tick_size for one in found.instruments] == ["0.1"]
    assert [(one.symbol, one.reason[:22]) for one in found.unreadable] == [
        ("BTC-USDT-SWAP", "it is listed twice, an")
    ]


STATES = [
    (BINANCE, "spot", "status", ["BREAK", "HALT", "PRE_TRADING", "END_OF_DAY"]),
    (BINANCE, "usdm", "status", ["PENDING_TRADING", "SETTLING", "CLOSE"]),
    (BINANCE, "coinm", "contractStatus", ["PRE_DELIVERING", "DELIVERED"]),
    (Bybit, "linear", "status", ["PreLaunch", "Delivering", "Closed"]),
    (Kraken, "spot", "status", ["cancel_only", "maintenance", "delisted"]),
    (Okx, "swap", "state", ["suspend", "preopen", "expired", "test"]),
    (Coinbase, "spot", "status", ["offline", "delisted"]),
    (Coinbase, "spot", "trading_disabled", [True]),
    (Coinbase, "spot", "cancel_only", [True]),
]


@pytest.mark.parametrize(("adapter", "market", "field", "states"), STATES)
def test_a_symbol_that_does_not_trade_is_listed_so(
    adapter: AdapterType, market: str, field: str, states: list[Any]
) -> None:
    victim = next(
        one
        for one in entries(adapter, market)
        if adapter.listing(market, one).trading  # type: ignore[union-attr]
    )
    symbol = adapter.listing(market, victim).symbol  # type: ignore[union-attr]
    metadata = adapter.parse_instrument(market, victim)
    for state in states:
        found = read_entries(adapter, market, [victim | {field: state}])
        halted = found.halted[symbol]
        assert halted.status == (field if state is True else state)
        assert halted.instrument == metadata
        assert not found.trading
        assert not found.unreadable
