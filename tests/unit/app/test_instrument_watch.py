"""Lists are read again while running, with real servers: changes are told, faults are contained."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import InstrumentList, ListChange
from ingestor.app.instrument_watch import InstrumentWatch, WatchPace
from ingestor.app.planning import InstrumentSource, ListSource, Planner
from ingestor.model.backoff import Backoff
from ingestor.telemetry import bulkheads
from tests.unit.app.venues import Venue, catalogue, config, serving

PACE = WatchPace(0.02, interval_s=0.01, start_s=0.01, retry=Backoff(0.02, 0.05, floor_s=0.01))
SLOW = WatchPace(3_600.0, interval_s=0.05, start_s=0.01)


class Heard:
    """Keeps what the watch tells, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, ListChange]] = []
        self.failures = 0

    def __call__(self, source: ListSource, listed: InstrumentList, change: ListChange) -> None:
        if self.failures:
            self.failures -= 1
            raise ArithmeticError("a bug of ours")
        self.changes.append((source.venue, change))

    def of(self, venue: str) -> list[ListChange]:
        return [change for one, change in self.changes if one == venue]


async def until(condition: Callable[[], Any], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def watching(
    planner: Planner, source: InstrumentSource, pace: WatchPace = PACE
) -> AsyncIterator[tuple[InstrumentWatch, Heard]]:
    heard = Heard()
    watch = InstrumentWatch(planner, pace, heard)
    task = asyncio.create_task(watch.run(source))
    with capture_logs():
        try:
            yield watch, heard
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def loaded(source: InstrumentSource, *venues: Venue) -> Planner:
    planner = Planner(config(*(one.feed("*") for one in venues)))
    for one in planner.sources:
        planner.lists[one] = await source.load(one.adapter, one.market, one.rest_url)
    planner.wanted()
    return planner


async def test_changes_are_told_as_they_come(tmp_path: Path) -> None:
    async with serving(("okx", "swap")) as (okx,), catalogue(tmp_path) as source:
        planner = await loaded(source, okx)
        async with watching(planner, source) as (_, heard):
            before = okx.asked
            await until(lambda: okx.asked >= before + 3)
            assert heard.changes == [], "the same list is no news"
            answer = okx.edit()
            btc, inverse, *others = answer["data"]
            btc |= {"tickSz": "1", "lotSz": "10"}  # coarser
            okx.serve(answer)
            await until(lambda: heard.changes)
            inverse["state"] = "suspend"
            okx.serve(answer)
            await until(lambda: len(heard.changes) == 2)
            inverse["state"] = "live"
            new = btc | {
                "instId": "NEWEST-USDT-SWAP",
                "uly": "NEWEST-USDT",
                "instFamily": "NEWEST-USDT",
            }
            okx.serve(answer | {"data": [btc, inverse, new, *others]})
            await until(lambda: len(heard.changes) == 3)
            okx.serve(answer | {"data": [inverse, new, *others]})
            await until(lambda: len(heard.changes) == 4)
        coarser, halted, resumed, delisted = heard.of("okx")
        ((old, fresh),) = coarser.changed
        assert (old.tick_size, fresh.tick_size, fresh.lot_size) == ("0.1", "1", "10")
        assert [(one.symbol, one.status) for one in halted.halted] == [
            (inverse["instId"], "suspend")
        ]
        assert [one.symbol for one in resumed.resumed] == [inverse["instId"]]
        assert [one.symbol for one in resumed.added] == ["NEWEST-USDT-SWAP"]
        assert delisted.gone == ("BTC-USDT-SWAP",)


async def test_a_list_that_was_missing_comes(tmp_path: Path) -> None:
    async with (
        serving(("okx", "spot"), ("coinbase", "spot")) as (okx, coinbase),
        catalogue(tmp_path, deadline_s=0.2) as source,
    ):
        planner = Planner(config(okx.feed("BTC-USDT"), coinbase.feed("BTC-USD")))
        okx.hangs = True
        async with watching(planner, source) as (_, heard):
            await until(lambda: heard.of("coinbase"))
            assert not heard.of("okx"), "one that hangs holds up no other"
            (wish,) = planner.wanted()
            assert wish.adapter.venue == "coinbase"
            await until(lambda: okx.asked >= 2)
            okx.hangs = False
            await until(lambda: heard.of("okx"))
            (wish,) = planner.wanted()
            assert wish.adapter.venue == "okx"
            assert planner.waiting == ()


async def test_an_odd_entry_while_running_changes_nothing(tmp_path: Path) -> None:
    async with serving(("bybit", "linear")) as (bybit,), catalogue(tmp_path) as source:
        planner = await loaded(source, bybit)
        (one,) = planner.sources
        before = planner.lists[one].trading
        good = bybit.body
        async with watching(planner, source) as (_, heard):
            answer = bybit.edit()
            answer["result"]["list"][0]["priceFilter"] = None
            bybit.serve(answer)
            asked = bybit.asked
            await until(lambda: bybit.asked >= asked + 3)
            bybit.body = b'{"retCode":10006,"retMsg":"Too many visits."}'
            await until(lambda: bybit.asked >= asked + 6)
            bybit.body = good
            await until(lambda: bybit.asked >= asked + 9)
        assert heard.changes == []
        assert dict(planner.lists[one].trading) == before


async def test_a_change_that_could_not_be_taken_is_told_again(
    tmp_path: Path, expected_bugs: Counter[str]
) -> None:
    async with serving(("kraken", "spot")) as (kraken,), catalogue(tmp_path) as source:
        planner = await loaded(source, kraken)
        async with watching(planner, source) as (_, heard):
            heard.failures = 2
            expected_bugs["instrument list"] = 2
            answer = kraken.edit()
            next(iter(answer["result"].values()))["tick_size"] = "5"
            kraken.serve(answer)
            await until(lambda: heard.changes)
        assert [change.changed[0][1].tick_size for change in heard.of("kraken")] == ["5"]


async def test_a_request_is_answered_soon_and_not_too_often(tmp_path: Path) -> None:
    async with serving(("kraken", "spot")) as (kraken,), catalogue(tmp_path) as source:
        planner = await loaded(source, kraken)
        async with watching(planner, source, SLOW) as (watch, _):
            await asyncio.sleep(0.1)
            assert kraken.asked == 1, "it is fresh for an hour"
            for _ in range(100):
                watch.request("kraken", "spot")
                watch.request("kraken", "other")
                await asyncio.sleep(0.002)
            assert 2 <= kraken.asked <= 8


async def test_a_list_from_disk_is_read_again_after_the_start(tmp_path: Path) -> None:
    async with serving(("kraken", "spot")) as (kraken,), catalogue(tmp_path) as source:
        await loaded(source, kraken)
        planner = await loaded(source, kraken)
        assert kraken.asked == 1
        async with watching(planner, source, SLOW):
            await until(lambda: kraken.asked == 2)
            await asyncio.sleep(0.2)
            assert kraken.asked == 2


async def test_one_list_without_a_symbol_is_no_delisting(tmp_path: Path) -> None:
    async with serving(("kraken", "spot")) as (kraken,), catalogue(tmp_path) as source:
        planner = await loaded(source, kraken)
        (one,) = planner.sources
        before = planner.lists[one].trading
        good = kraken.body
        quick = WatchPace(3_600.0, interval_s=0.1, start_s=0.01)
        async with watching(planner, source, quick) as (watch, heard):
            answer = kraken.edit()
            del answer["result"][next(iter(answer["result"]))]
            kraken.serve(answer)
            watch.request("kraken", "spot")
            await until(lambda: kraken.asked == 2)
            kraken.body = good
            await until(lambda: kraken.asked == 3)  # by itself, for certainty
            await asyncio.sleep(0.05)
            assert heard.changes == []
            assert planner.lists[one].trading == before


@pytest.mark.rows("I4")
async def test_a_halt_before_a_delisting_hides_it_not(tmp_path: Path) -> None:
    async with serving(("okx", "swap")) as (okx,), catalogue(tmp_path) as source:
        planner = await loaded(source, okx)
        async with watching(planner, source) as (_, heard):
            answer = okx.edit()
            first, *others = answer["data"]
            first["state"] = "suspend"
            okx.serve(answer)
            await until(lambda: heard.changes)
            okx.serve(answer | {"data": others})
            await until(lambda: len(heard.changes) == 2)
        assert heard.of("okx")[1].gone == (first["instId"],)


async def test_whatever_a_source_raises_costs_its_list_alone(
    tmp_path: Path, expected_bugs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulkheads, "RESTART", Backoff(0.01, 0.01))
    failures = [RuntimeError, OSError, StopIteration, struct.error, ArithmeticError, MemoryError]
    expected_bugs["instrument list"] = len(failures)
    async with (
        serving(("okx", "spot"), ("coinbase", "spot")) as (okx, coinbase),
        catalogue(tmp_path) as source,
    ):
        planner = Planner(config(okx.feed("*"), coinbase.feed("*")))
        refresh = source.refresh

        async def faulty(
            adapter: type[FeedAdapter], market: str, rest_url: str | None = None
        ) -> InstrumentList | None:
            if adapter.venue == "okx" and failures:
                raise failures.pop(0)("injected")
            return await refresh(adapter, market, rest_url)

        source.refresh = faulty  # type: ignore[method-assign]
        async with watching(planner, source) as (_, heard):
            await until(lambda: heard.of("coinbase"))
            await until(lambda: heard.of("okx"))
        assert not failures
