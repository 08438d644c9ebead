"""Plans at the start: what costs a market or a symbol costs no other, with real servers."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import InstrumentList
from ingestor.app.planning import ListSource, Planned, Planner, load_plan, make_planned
from ingestor.model.errors import ConfigError
from ingestor.sources.rest.resolve import WaitReason
from ingestor.sources.rest.statistics import lists
from tests.unit.app.venues import ADAPTERS, catalogue, config, serving


def running(planned: Planned) -> set[str]:
    return {
        planned.table[one.instrument].key
        for connection in planned.plan
        for one in connection.subscriptions
    }


def waiting(planned: Planned) -> dict[str, str]:
    return {one.name: one.reason.value for one in planned.waiting}


@pytest.mark.rows("I4")
async def test_a_halted_symbol_waits_and_the_rest_runs(tmp_path: Path) -> None:
    async with serving(("binance", "spot"), ("kraken", "spot")) as (binance, kraken):
        answer = binance.edit()
        next(one for one in answer["symbols"] if one["symbol"] == "BTCUSDT")["status"] = "BREAK"
        binance.serve(answer)
        answer = kraken.edit()
        next(iter(answer["result"].values()))["status"] = "cancel_only"
        kraken.serve(answer)
        feeds = config(binance.feed("BTCUSDT", "PEPEUSDT"), kraken.feed("BTC-USD", "DOGE-EUR"))
        kept = feeds.catalogue.model_copy(update={"cache_dir": tmp_path})
        with capture_logs() as logs:
            planned = await load_plan(feeds.model_copy(update={"catalogue": kept}))
    assert running(planned) == {"binance:spot:PEPEUSDT", "kraken:spot:DOGE/EUR"}
    assert waiting(planned) == {"BTCUSDT": "not_trading", "BTC-USD": "not_trading"}
    said = [line for line in logs if line["event"] == "symbol.waiting"]
    assert [(line["symbol"], line["detail"]) for line in said] == [
        ("BTCUSDT", "BTCUSDT is 'BREAK'"),
        ("BTC-USD", "BTC/USD is 'cancel_only'"),
    ]
    assert lists.waiting == {
        ("binance", "spot", "not_trading"): 1,
        ("kraken", "spot", "not_trading"): 1,
    }


@pytest.mark.rows("I3")
async def test_an_odd_entry_costs_the_symbol_that_is_named(tmp_path: Path) -> None:
    async with serving(("okx", "swap"), ("bybit", "linear")) as (okx, bybit):
        answer = okx.edit()
        odd = answer["data"][0] | {"instId": "NEWX-USDT-SWAP", "uly": "NEWX-USDT", "ctVal": ""}
        okx.serve(answer | {"data": [odd, *answer["data"]]})
        answer = bybit.edit()
        tradfi = answer["result"]["list"][0] | {"symbol": "XAUUSDT", "contractType": "TradFi"}
        answer["result"]["list"].append(tradfi)
        bybit.serve(answer)
        feeds = config(
            okx.feed("NEWX-USDT-PERP", "BTC-USDT-PERP"), bybit.feed("XAUUSDT", "BTC-USDT-PERP")
        )
        async with catalogue(tmp_path) as source:
            with capture_logs():
                planned = await make_planned(feeds, source)
    assert running(planned) == {"okx:swap:BTC-USDT-SWAP", "bybit:linear:BTCUSDT"}
    assert waiting(planned) == {"NEWX-USDT-PERP": "unreadable", "XAUUSDT": "unreadable"}
    assert [one.detail.split(":")[0] for one in planned.waiting] == ["NEWX-USDT-SWAP", "XAUUSDT"]


@pytest.mark.rows("I3")
@pytest.mark.parametrize("fault", ["refused", "hangs", "status", "error", "html", "empty"])
async def test_a_venue_without_a_list_stops_no_other(
    tmp_path: Path, fault: str, unused_tcp_port: int
) -> None:
    async with serving(("okx", "spot"), ("coinbase", "spot")) as (okx, coinbase):
        match fault:
            case "refused":
                okx.url = f"http://127.0.0.1:{unused_tcp_port}"
            case "hangs":
                okx.hangs = True
            case "status":
                okx.status = 451
            case "error":
                okx.serve({"code": "50011", "msg": "Too Many Requests", "data": []})
            case "html":
                okx.body = b"<html>maintenance</html>"
            case "empty":
                okx.serve({"code": "0", "data": []})
        feeds = config(okx.feed("BTC-USDT"), coinbase.feed("BTC-USD"))
        started_s = time.monotonic()
        async with catalogue(tmp_path) as source:
            with capture_logs() as logs:
                planned = await make_planned(feeds, source)
    assert time.monotonic() - started_s < 20  # a question to a venue that hangs is given up sooner
    assert running(planned) == {"coinbase:spot:BTC-USD"}
    assert waiting(planned) == {"BTC-USDT": "no_list"}
    (line,) = [line for line in logs if line["event"] == "catalogue.unavailable"]
    assert (line["venue"], line["market"]) == ("okx", "spot")
    if fault == "error":
        assert "error 50011: Too Many Requests" in line["reason"]


async def test_without_any_list_the_plan_is_empty(tmp_path: Path) -> None:
    async with serving(("okx", "spot")) as (okx,):
        okx.status = 503
        async with catalogue(tmp_path) as source:
            with capture_logs():
                planned = await make_planned(config(okx.feed("BTC-USDT")), source)
    assert len(planned.plan) == 0
    assert waiting(planned) == {"BTC-USDT": "no_list"}


async def test_a_bug_in_a_list_stops_no_other(tmp_path: Path, expected_bugs: Counter[str]) -> None:
    async with (
        serving(("okx", "spot"), ("coinbase", "spot")) as (okx, coinbase),
        catalogue(tmp_path) as source,
    ):
        load = source.load

        async def faulty(
            adapter: type[FeedAdapter], market: str, rest_url: str | None = None
        ) -> InstrumentList:
            if adapter.venue == "okx":
                raise StopAsyncIteration
            return await load(adapter, market, rest_url)

        source.load = faulty  # type: ignore[method-assign]
        expected_bugs["instrument list"] = 1
        feeds = config(okx.feed("BTC-USDT"), coinbase.feed("BTC-USD"))
        with capture_logs():
            planned = await make_planned(feeds, source)
    assert running(planned) == {"coinbase:spot:BTC-USD"}


async def test_a_name_that_can_never_be_right_is_an_error(tmp_path: Path) -> None:
    async with serving(("kraken", "spot"), ("okx", "spot")) as (kraken, okx):
        okx.status = 503  # nothing that another venue has changes this
        feeds = config(okx.feed("BTC-USDT"), kraken.feed("BTC-UDS"))
        async with catalogue(tmp_path) as source:
            with capture_logs(), pytest.raises(ConfigError, match="did you mean BTC-USD"):
                await make_planned(feeds, source, "a.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"venue": "krakn"}, "krakn"), ({"market": "spott"}, "spott"), ({"channels": ("x",)}, "'x'")],
)
def test_names_are_checked_without_a_list(change: dict[str, object], message: str) -> None:
    feeds = config({"venue": "kraken", "market": "spot", "symbols": ["BTC-USD"]})
    feeds.feeds[0].__dict__.update(change)  # as a configuration that nothing has validated
    with pytest.raises(ConfigError, match=message):
        Planner(feeds)


async def test_a_symbol_listed_since_the_kept_list_is_found(tmp_path: Path) -> None:
    async with serving(("coinbase", "spot")) as (coinbase,), catalogue(tmp_path) as source:
        await make_planned(config(coinbase.feed("BTC-USD")), source)
        answer = coinbase.edit()
        answer["products"].append(
            answer["products"][0] | {"product_id": "NEW-USD", "base_currency_id": "NEW"}
        )
        coinbase.serve(answer)
        planned = await make_planned(config(coinbase.feed("NEW-USD")), source)
        assert running(planned) == {"coinbase:spot:NEW-USD"}
        assert coinbase.asked == 2
        with pytest.raises(ConfigError):
            await make_planned(config(coinbase.feed("OTHER-USD")), source)


async def test_an_unknown_symbol_waits_while_only_an_old_list_is_there(tmp_path: Path) -> None:
    async with serving(("coinbase", "spot")) as (coinbase,), catalogue(tmp_path) as source:
        await make_planned(config(coinbase.feed("BTC-USD")), source)
        coinbase.status = 503
        with capture_logs():
            planned = await make_planned(config(coinbase.feed("BTC-USD", "NEW-USD")), source)
    assert running(planned) == {"coinbase:spot:BTC-USD"}
    assert waiting(planned) == {"NEW-USD": "unlisted"}


async def test_what_is_new_is_handed_out_once(tmp_path: Path) -> None:
    """Also with two feeds of one market, whose channels differ."""
    async with serving(("okx", "swap")) as (okx,):
        feeds = config(
            okx.feed("BTC-USDT-PERP", channels=["trades"]),
            okx.feed("*-PERP", channels=["trades", "book"]),
        )
        planner = Planner(feeds)
        (source,) = planner.sources
        assert planner.wanted() == []
        assert {one.reason for one in planner.waiting} == {WaitReason.NO_LIST}
        async with catalogue(tmp_path) as lists_of:
            planner.lists[source] = await lists_of.load(source.adapter, "swap", okx.url)
        found = planner.wanted(source)
        assert planner.waiting == ()
        number = {planner.table[one].symbol: one for one in range(len(planner.table))}
        handed = [
            (instrument, channel)
            for wish in found
            for instrument in wish.instruments
            for channel in wish.channels
            if planner.table[instrument].symbol in {"BTC-USDT-SWAP", "BTC-USD-SWAP"}
        ]
        btc, inverse = number["BTC-USDT-SWAP"], number["BTC-USD-SWAP"]
        assert sorted(handed) == sorted(
            [(btc, "trades"), (btc, "book"), (inverse, "trades"), (inverse, "book")]
        )
        assert planner.wanted() == []
        planner.retire("okx", "swap", ["BTC-USD-SWAP"])
        (again,) = planner.wanted()
        assert list(again.instruments) == [inverse]


def test_a_delisted_symbol_is_no_error_while_running() -> None:
    feeds = config({"venue": "kraken", "market": "spot", "symbols": ["BTC-USD"]})
    planner = Planner(feeds)
    source = ListSource(ADAPTERS["kraken"], "spot", None)
    planner.lists[source] = InstrumentList("kraken", "spot")
    assert planner.wanted(source) == []
    assert [one.reason for one in planner.waiting] == [WaitReason.UNLISTED]
