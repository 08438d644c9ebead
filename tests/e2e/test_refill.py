"""What an outage longer than the budget shed comes back from the recording, each row once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.app.refill import refill
from ingestor.config.model import Config
from ingestor.consumer import in_place
from ingestor.history.shed_rows import MissingRows
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind
from ingestor.sinks.kafka.overload import Step
from ingestor.sources.replay.compact import compact
from tests.e2e.harness import Published, Running, make_config, published, running
from tests.e2e.processes import Venue, simulated_venue
from tests.e2e.test_outage import Submitted
from tests.kafka.broker import KafkaBroker

SYMBOLS = 50
MESSAGES_PER_S = 2_000
BUDGET = {"bytes": 512 << 10, "pause_max_s": 0.5}
Rows = np.ndarray[Any, Any]


@pytest.fixture
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=SYMBOLS, rate_per_s=MESSAGES_PER_S / SYMBOLS / 3) as venue:
        yield venue


def config_of(broker: KafkaBroker, venue: Venue, folder: Path, **sections: Any) -> Config:
    feed = venue.feed | {"streams_per_connection": 15}
    kafka = {"request_timeout_ms": 2_000, **sections.pop("kafka", {})}
    recorder = {"path": folder / "recordings", **sections.pop("recorder", {})}
    return make_config(
        broker.bootstrap_servers,
        [feed],
        folder,
        budget=BUDGET,
        kafka=kafka,
        recorder=recorder,
        **sections,
    )


async def shed_in_an_outage(broker: KafkaBroker, run: Running) -> None:
    """Let Kafka be away until rows are shed, and wait until it has taken what was left."""
    sink = run.ingestor.sink
    assert sink is not None
    events = sink.queue.policy.events
    await run.subscribed()
    await asyncio.sleep(1)
    broker.pause()
    await run.until(lambda: any(step is Step.SHED for _, step, _ in events))
    await asyncio.sleep(1)
    broker.resume()
    await run.until(lambda: sink.is_up and not run.ingestor.supervisor.is_paused)
    await asyncio.sleep(1)


def clean(submitted: Submitted) -> dict[str, Rows]:
    """What a run without an outage publishes of trades, by instrument."""
    return {key: rows for one, key, rows in submitted.by_key() if one is RowClass.TRADE}


def facts(rows: Rows) -> list[Any]:
    """Rows without the flag that says when they came and the number of their instrument."""
    plain = rows.copy()
    plain["instrument"] = 0
    plain["flags"] &= ~np.uint16(Flag.BACKFILL)
    found: list[Any] = plain.tolist()
    return found


def open_gaps(found: Published) -> int:
    """How many GAPs of shed trades a reader meets who has put everything in place."""
    every = [in_place(found.rows(RowClass.TRADE, key)) for key in found.keys(RowClass.TRADE)]
    marks = [(rows["kind"] == Kind.GAP) & (rows["side"] == Cause.SHED) for rows in every]
    return sum(int(mark.sum()) for mark in marks)


_choose = MissingRows.choose


def _first_ten(missing: MissingRows, rows: Rows) -> Rows:
    left = max(0, 10 - missing.rows)
    return _choose(missing, rows)[:left]


@pytest.mark.parametrize(
    "encoding", ["json", pytest.param("binary", marks=pytest.mark.long(minutes=1))]
)
async def test_a_reader_gets_the_rows_of_a_run_without_an_outage(
    private_kafka: KafkaBroker,
    venue: Venue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
) -> None:
    config = config_of(private_kafka, venue, tmp_path, kafka={"encoding": encoding})
    async with running(config) as run:
        submitted = Submitted(run)
        await shed_in_an_outage(private_kafka, run)
        drained = await run.stop()
    assert (drained.lost, drained.status.unaccounted) == (0, 0)
    wanted = clean(submitted)
    before = await published(config)
    lost = sum(map(len, wanted.values())) - before.count(RowClass.TRADE, Kind.TRADE)
    assert lost > 0
    assert open_gaps(before) > 0
    folder = tmp_path / "recordings"
    compact(folder)  # beside raw/: it disturbs nothing

    with monkeypatch.context() as killed:  # in the middle: some rows are published, no GAP closed
        killed.setattr(MissingRows, "choose", _first_ten)
        killed.setattr(MissingRows, "filled", lambda *_: [])
        half = await refill(config, folder)
    assert 0 < half.rows["trades"] < lost
    found = await refill(config, folder)
    assert (found.filled, found.ranges, found.problems) == (found.ranges, open_gaps(before), [])
    assert half.rows["trades"] + found.rows["trades"] == lost
    again = await refill(config, folder)
    assert (again.ranges, sum(again.rows.values())) == (0, 0)

    after = await published(config)
    assert after.holes == 0
    assert open_gaps(after) == 0
    assert after.count(RowClass.TRADE, Kind.TRADE) == sum(
        int((rows["kind"] == Kind.TRADE).sum()) for rows in wanted.values()
    )
    for key, rows in wanted.items():
        assert facts(in_place(after.rows(RowClass.TRADE, key))) == facts(rows), key


@pytest.mark.long(minutes=1)
async def test_a_running_ingestor_refills_by_itself(
    private_kafka: KafkaBroker, venue: Venue, tmp_path: Path
) -> None:
    config = config_of(private_kafka, venue, tmp_path, recorder={"refill": True})
    async with running(config) as run:
        worker = run.ingestor.refill
        assert worker is not None
        submitted = Submitted(run)
        await shed_in_an_outage(private_kafka, run)
        await run.until(lambda: worker.outcomes["filled"] > 0, 120)
        drained = await run.stop()
    assert (drained.lost, drained.status.unaccounted) == (0, 0)
    after = await published(config)
    assert open_gaps(after) == 0
    assert worker.rows["trades"] > 0
    for key, rows in clean(submitted).items():
        assert facts(in_place(after.rows(RowClass.TRADE, key))) == facts(rows), key
