"""Instrument lists change while running: listings, delistings, halts, ticks both ways (I2, I4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from ingestor.app import instrument_watch
from ingestor.app.instrument_watch import WatchPace
from ingestor.model.backoff import Backoff
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import Running, make_config, published, running

SYMBOLS = 6
QUICK = Backoff(base_s=0.05, cap_s=0.1)

Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


class Lists:
    """The venue's list, as a test wants it to be."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = dict(body)
        self.change: Change = lambda entries: entries
        self.asked = 0

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        entries = self.change([dict(entry) for entry in self._body["instruments"]])
        return web.Response(body=orjson.dumps({**self._body, "instruments": entries}))


@asynccontextmanager
async def listed(
    tmp_path: Path, patch: pytest.MonkeyPatch, change: Change = lambda entries: entries
) -> AsyncIterator[tuple[Running, Lists, Any]]:
    """Run with a list that is read ten times a second."""
    pace = WatchPace(ttl_s=0.1, interval_s=0.05, start_s=0.0, retry=QUICK)
    patch.setattr("ingestor.app.instrument_changes.WatchPace", lambda _ttl_s: pace)
    assert instrument_watch.WatchPace is WatchPace
    async with Simulator(SimulatorOptions(symbols=SYMBOLS, rate_per_s=50.0)) as simulator:
        async with ClientSession() as http, http.get(f"{simulator.rest}/instruments") as answer:
            lists = Lists(orjson.loads(await answer.read()))
        lists.change = change
        application = web.Application()
        application.router.add_get("/instruments", lists.answer)
        async with TestServer(application) as rest:
            feed = {
                "venue": "simulated",
                "symbols": ["*"],
                "url": simulator.addresses[0],
                "rest_url": str(rest.make_url("/")).rstrip("/"),
                "streams_per_connection": 9,
            }
            with DevBroker() as broker:
                config = make_config(broker.bootstrap_servers, [feed], tmp_path)
                async with running(config) as one:
                    await one.subscribed()
                    yield one, lists, config


def numbers_of(one: Running) -> dict[str, int]:
    table = one.ingestor.planned.table
    return dict(table.symbols("simulated", "spot"))


def trades_of(one: Running, symbol: str) -> int:
    number = numbers_of(one).get(symbol)
    seen = one.ingestor.pipeline.metrics.last_seen
    return 0 if number is None else seen.of(RowClass.TRADE, number)[0]


@pytest.mark.rows("I4", "I2")
async def test_a_listing_starts_and_a_delisting_ends_without_a_trace_in_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_first(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return entries[:-1]

    async with listed(tmp_path, monkeypatch, at_first) as (one, lists, config):
        names = sorted(numbers_of(one))
        new = f"S0000{SYMBOLS - 1}-USD"
        assert new not in names
        lists.change = lambda entries: entries[1:]
        await one.until(lambda: trades_of(one, new) > 5)
        gone, others = names[0], names[1:]
        supervisor = one.ingestor.supervisor
        number = numbers_of(one)[gone]
        await one.until(lambda: supervisor.connection_of(number) is None)
        before = {symbol: trades_of(one, symbol) for symbol in others}
        await one.until(lambda: all(trades_of(one, name) > before[name] for name in others))
        assert sum(supervisor.statistics().reconnects.values()) == 0
        drained = await one.stop()
        assert drained.status.unaccounted == 0
        rows = await published(config)
        for symbol in others:
            for row_class in (one for one in ROW_CLASSES if one.is_standard):
                kinds = rows.rows(row_class, f"simulated:spot:{symbol}")["kind"].tolist()
                assert kinds
                assert 4 not in kinds, "no GAP"


@pytest.mark.rows("I2")
@pytest.mark.parametrize("tick", ["0.1", "0.0001"], ids=["coarser", "finer"])
async def test_a_tick_that_changes_is_taken_without_a_refused_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: str
) -> None:
    async with listed(tmp_path, monkeypatch) as (one, lists, _):
        before = numbers_of(one)

        def change(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [
                {**entry, "tick_size": tick} if place == 0 else entry
                for place, entry in enumerate(entries)
            ]

        lists.change = change
        await one.until(lambda: numbers_of(one) != before)
        [symbol] = [name for name, number in numbers_of(one).items() if before[name] != number]
        new = numbers_of(one)[symbol]
        books = one.ingestor.pipeline.books
        if tick == "0.0001":
            await one.until(lambda: books.is_valid(new))
            seen = trades_of(one, symbol)
            await one.until(lambda: trades_of(one, symbol) > seen)
        assert all(books.is_valid(number) for name, number in before.items() if name != symbol)
        assert sum(one.ingestor.supervisor.statistics().reconnects.values()) == 0
        drained = await one.stop()
        assert drained.status.unaccounted == 0


@pytest.mark.rows("I3")
async def test_a_list_that_fails_or_is_odd_costs_nothing_while_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listed(tmp_path, monkeypatch) as (one, lists, _):
        before, asked = numbers_of(one), lists.asked

        def odd(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if lists.asked % 2:
                raise RuntimeError("the venue's server fails")
            return [{**entries[0], "tick_size": {"a": []}}, *entries[1:]]

        lists.change = odd
        await one.until(lambda: lists.asked > asked + 4)
        assert numbers_of(one) == before
        trades = {symbol: trades_of(one, symbol) for symbol in before}
        await one.until(lambda: all(trades_of(one, name) > trades[name] for name in before))
        assert (await one.stop()).status.unaccounted == 0
