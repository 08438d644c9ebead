"""A broker that stalls or dies under load: nothing is lost unseen, and what is shed says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.config.model import Config
from ingestor.consumer.orderbook import OrderBook
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Cause, Kind
from ingestor.sinks.kafka.overload import Step
from tests.e2e.harness import Published, Running, make_config, published, running
from tests.e2e.processes import Venue, simulated_venue
from tests.kafka.broker import KafkaBroker

SYMBOLS = 50
MESSAGES_PER_S = 2_000
Rows = np.ndarray[Any, Any]


@pytest.fixture
def venue() -> Iterator[Venue]:
    """Trades, quotes and books on ten connections."""
    with simulated_venue(symbols=SYMBOLS, rate_per_s=MESSAGES_PER_S / SYMBOLS / 3) as venue:
        yield venue


def config_of(broker: KafkaBroker, venue: Venue, folder: Path, **sections: Any) -> Config:
    feed = venue.feed | {"streams_per_connection": 15}
    return make_config(broker.bootstrap_servers, [feed], folder, **sections)


class Submitted:
    """Every row that was handed to the sink, by class and instrument."""

    def __init__(self, run: Running) -> None:
        self._table = run.ingestor.planned.table
        self._batches: list[tuple[RowClass, Rows]] = []
        run.ingestor.flusher.observe(
            lambda result, _: self._batches.extend(
                (batch.row_class, batch.rows) for batch in result.batches
            )
        )

    def by_key(self) -> Iterator[tuple[RowClass, str, Rows]]:
        for row_class in STANDARD_CLASSES:
            every = np.concatenate([rows for one, rows in self._batches if one is row_class])
            for number in np.unique(every["instrument"]).tolist():
                yield row_class, self._table[number].key, every[every["instrument"] == number]


def assert_same(submitted: Submitted, found: Published) -> None:
    """Each instrument's rows are in the topic: all of them, once, in their order."""
    total = 0
    for row_class, key, rows in submitted.by_key():
        read = found.rows(row_class, key)
        total += len(rows)
        for field in rows.dtype.names:
            if field != "instrument":  # numbered anew in each record
                assert np.array_equal(read[field], rows[field]), (key, row_class, field)
    assert (found.total, found.holes) == (total, 0)


def assert_venue_numbers_are_whole(found: Published) -> None:
    """The venue numbers its trades: none is missing between the first and the last."""
    keys = found.keys(RowClass.TRADE)
    assert len(keys) == SYMBOLS
    for key in keys:
        numbers = found.rows(RowClass.TRADE, key)["sequence"]
        assert (np.diff(numbers.astype(np.int64)) == 1).all()


async def load(run: Running, seconds: float) -> None:
    """Let so many seconds' messages come in; longer only where the machine is slow."""
    wanted = run.status.frames + int(seconds * MESSAGES_PER_S)
    await asyncio.sleep(seconds)
    await run.until(lambda: run.status.frames >= wanted)


@pytest.mark.long(minutes=1)
@pytest.mark.rows("K2")
async def test_a_broker_stopped_for_twenty_seconds(
    private_kafka: KafkaBroker, venue: Venue, tmp_path: Path
) -> None:
    await check_stopped_broker(private_kafka, config_of(private_kafka, venue, tmp_path), 20)


@pytest.mark.rows("K2")
async def test_a_broker_stopped_for_longer_than_a_request_may_take(
    private_kafka: KafkaBroker, venue: Venue, tmp_path: Path
) -> None:
    kafka = {"request_timeout_ms": 1_000}
    await check_stopped_broker(
        private_kafka, config_of(private_kafka, venue, tmp_path, kafka=kafka), 3
    )


async def check_stopped_broker(broker: KafkaBroker, config: Config, seconds: float) -> None:
    """Within the default budget nothing is conflated, shed or lost, and no socket waits."""
    async with running(config) as run:
        submitted = Submitted(run)
        await run.subscribed()
        await load(run, 1)
        broker.pause()
        await load(run, seconds)
        broker.resume()
        await load(run, 1)
        drained = await run.stop()
    status = drained.status
    assert (drained.lost, status.unaccounted, status.gaps, status.reconnects) == (0, 0, 0, 0)
    assert (status.shed, status.conflated, status.dead_lettered) == (0, 0, 0)
    found = await published(config)
    assert status.acked == found.total
    assert_same(submitted, found)
    assert_venue_numbers_are_whole(found)


@pytest.mark.rows("K1")
async def test_a_broker_killed_and_started_again(
    private_kafka: KafkaBroker, venue: Venue, tmp_path: Path
) -> None:
    config = config_of(private_kafka, venue, tmp_path, kafka={"encoding": "binary"})
    async with running(config) as run:
        submitted = Submitted(run)
        await run.subscribed()
        await load(run, 1)
        await asyncio.to_thread(private_kafka.kill)
        await load(run, 1)
        await asyncio.to_thread(private_kafka.start)
        await load(run, 1)
        drained = await run.stop()
    status = drained.status
    assert (drained.lost, status.unaccounted, status.shed, status.conflated) == (0, 0, 0, 0)
    found = await published(config)
    assert status.acked == found.total
    assert_same(submitted, found)
    assert_venue_numbers_are_whole(found)


@pytest.mark.rows("K5")
async def test_a_small_budget_meets_every_step_in_order(
    private_kafka: KafkaBroker, venue: Venue, tmp_path: Path
) -> None:
    """Conflate, pause reading, read on when the pause is used up, shed: section 4 of the design."""
    budget = {"bytes": 2 << 20, "pause_max_s": 1.0}
    config = config_of(
        private_kafka, venue, tmp_path, budget=budget, kafka={"request_timeout_ms": 5_000}
    )
    async with running(config) as run:
        sink, shed = run.ingestor.sink, set[tuple[RowClass, int]]()
        assert sink is not None
        events = sink.queue.policy.events
        sink.backpressure.observe_shed(
            lambda row_class, instrument: shed.add((row_class, instrument))
        )
        await run.subscribed()
        await load(run, 1)
        private_kafka.pause()
        await run.until(lambda: any(step is Step.SHED for _, step, _ in events))
        await asyncio.sleep(1)
        private_kafka.resume()
        await run.until(lambda: books_are_whole(run))
        await load(run, 1)
        drained = await run.stop()
        peak_bytes = sink.statistics().bytes_peak
        names = {number: run.ingestor.planned.table[number].key for _, number in shed}

    first = list(dict.fromkeys(step for _, step, _ in events))
    assert first == [Step.CONFLATE, Step.PAUSE, Step.RESUME, Step.SHED]
    assert budget["bytes"] / 2 < peak_bytes <= budget["bytes"]
    status = drained.status
    assert (drained.lost, status.unaccounted) == (0, 0)
    assert min(status.conflated, status.shed) > 0
    found = await published(config)
    assert (status.acked, 0) == (found.total, found.holes)
    assert {row_class for row_class, _ in shed} == set(STANDARD_CLASSES)
    for row_class, number in shed:
        assert_gap_and_repair(found, row_class, names[number])


def books_are_whole(run: Running) -> bool:
    [books] = run.ingestor.pipeline.books.statistics().values()
    return books.valid == books.books == SYMBOLS and not run.ingestor.supervisor.is_paused


def assert_gap_and_repair(found: Published, row_class: RowClass, key: str) -> None:
    """What was shed left a mark; a book was begun anew after it and is whole again."""
    rows = found.rows(row_class, key)
    gaps = np.flatnonzero((rows["kind"] == Kind.GAP) & (rows["side"] == Cause.SHED))
    assert len(gaps)
    if row_class is RowClass.LEVEL:
        resets = np.flatnonzero(rows["kind"] == Kind.RESET)
        assert resets[-1] > gaps[-1]
        book = OrderBook(key, 0, 0)
        book.feed(rows)
        assert book.is_valid
