"""Lost trades against a real server: it lags, fails, refuses, and answers in pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from feeds.okx import Okx
from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.rows import Cause, Flag, Kind
from ingestor.pipeline.backfill import BackfillSettings
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sources.live.backfill_worker import BackfillWorker
from ingestor.sources.rest.pool import RestPools

MS = 1_767_225_600_000
SETTINGS = BackfillSettings(delay_s=0.0, backoff_s=0.01, misses_max=4)
Answer = Callable[[int], Any]  # of the requests so far: a body, or a status


def trade(number: int) -> dict[str, str]:
    numbers = {"tradeId": str(number), "px": "100.5", "sz": "1", "ts": str(MS + number)}
    return {"instId": "BTC-USDT", "side": "buy", **numbers}


@dataclass
class Bench:
    """A worker at work, and what stands around it."""

    session: Session
    pipeline: Pipeline
    worker: BackfillWorker
    carrier: Any
    queries: list[dict[str, str]]
    published: list[tuple[str, int]] = field(default_factory=list)

    def flush(self) -> None:
        result = self.pipeline.flush(1)
        for batch in result.batches:
            for row in batch.rows:
                if row["kind"] == Kind.TRADE:
                    mark = "+" if row["flags"] & Flag.BACKFILL else ""
                    self.published.append((f"{mark}trade", int(row["sequence"])))
                else:
                    self.published.append((Cause(int(row["side"])).name, int(row["price"])))
        if result.lost:
            self.worker.observe(result, 0)

    def come(self, *numbers: int) -> None:
        for number in numbers:
            data = web.json_response({
                "arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [trade(number)]
            }).body  # fmt: skip
            assert isinstance(data, bytes)
            self.session.receive(data, 1)
        self.flush()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    def outcomes(self) -> dict[str, int]:
        return {outcome: count for (*_, outcome), count in self.worker.counts.items()}


@asynccontextmanager
async def bench(answer: Answer, settings: BackfillSettings = SETTINGS) -> AsyncIterator[Bench]:
    queries: list[dict[str, str]] = []

    async def serve(request: web.Request) -> web.Response:
        queries.append(dict(request.query))
        found = answer(len(queries))
        return (
            web.json_response(found) if not isinstance(found, int) else web.Response(status=found)
        )

    application = web.Application()
    application.add_routes([web.get("/api/v5/market/history-trades", serve)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one = instrument("okx", "spot", "BTC-USDT", "BTC-USDT", "BTC", "USDT", "0.1", "1")
    table = InstrumentTable([one])
    numbers = Okx.markets["spot"].trade_numbers
    pipeline = Pipeline(table, lambda _: Okx.markets["spot"].book, None, lambda _: numbers)
    queue = pipeline.frame_queues.of(Okx, "spot")
    adapter = Okx("spot", table.symbols("okx", "spot"))
    subscriptions = [Subscription(0, "BTC-USDT", "trades", "trades:BTC-USDT")]
    session = Session(0, adapter, subscriptions, queue.buffer, queue.counts, SessionEvents())
    rest_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    planned = SimpleNamespace(rest_url=rest_url, venue="okx", market="spot", adapter=Okx)
    pools = RestPools(weight_per_s=1_000.0)
    carrier = SimpleNamespace(session=session, is_open=True, slot=SimpleNamespace(planned=planned))
    connections: Any = SimpleNamespace(connection_of=lambda *_: carrier)
    made: list[Bench] = []
    worker = BackfillWorker(
        connections,
        pipeline.trade_gaps,
        table,
        lambda: made[0].flush(),
        pools,
        settings=settings,
    )
    made.append(Bench(session, pipeline, worker, carrier, queries))
    task = asyncio.create_task(worker.run())
    try:
        yield made[0]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pools.aclose()
        await runner.cleanup()


async def test_pages_are_asked_for_until_all_came() -> None:
    pages = [[9, 8], [7, 6]]
    async with bench(lambda count: {"data": [trade(one) for one in pages[count - 1]]}) as one:
        one.come(5, 10)
        await one.until(lambda: len(one.published) == 7)
    assert one.published[3:] == [("+trade", 8), ("+trade", 9), ("+trade", 6), ("+trade", 7)]
    assert [query["after"] for query in one.queries] == ["10", "8"]
    assert one.outcomes() == {"answered": 2}


async def test_a_history_that_lags_or_fails_is_asked_again() -> None:
    answers: dict[int, Any] = {1: {"data": []}, 2: 500, 3: {"data": "x"}}
    async with bench(lambda count: answers.get(count, {"data": [trade(6)]})) as one:
        one.come(5, 7)
        await one.until(lambda: ("+trade", 6) in one.published)
    assert one.outcomes() == {"answered": 2, "failed": 1, "unreadable": 1}


async def test_what_brings_nothing_is_given_up() -> None:
    async with bench(lambda _: {"data": [trade(7)]}) as one:
        one.come(5, 8)
        await one.until(lambda: len(one.published) == 5)
    assert one.published[3:] == [("+trade", 7), ("UNFILLED", 6)]
    assert one.outcomes() == {"answered": 5}


async def test_a_refusal_gives_up_at_once() -> None:
    async with bench(lambda _: 403) as one:
        one.come(5, 8)
        await one.until(lambda: ("UNFILLED", 6) in one.published)
    assert one.outcomes() == {"refused": 1}


async def test_a_range_that_is_too_large_is_given_up_unasked() -> None:
    async with bench(lambda _: 500, BackfillSettings(trades_max=2)) as one:
        one.come(5, 9)
        await one.until(lambda: ("UNFILLED", 6) in one.published)
    assert one.queries == []


async def test_what_came_late_is_not_asked_for() -> None:
    async with bench(lambda _: {"data": []}, BackfillSettings(delay_s=0.1)) as one:
        one.come(5, 7, 6)
        gaps = one.pipeline.trade_gaps
        assert gaps.filled == {("okx", "spot"): 1}
        one.come(9)
        await one.until(lambda: len(one.queries) == 1)
    assert [query["after"] for query in one.queries] == ["9"]


async def test_while_the_connection_is_down_nothing_is_asked() -> None:
    settings = BackfillSettings(delay_s=0.0, backoff_s=0.05)
    async with bench(lambda _: {"data": [trade(6)]}, settings) as one:
        one.carrier.is_open = False
        one.come(5, 7)
        await asyncio.sleep(0.02)
        assert one.queries == []
        one.carrier.is_open = True
        await one.until(lambda: ("+trade", 6) in one.published)
