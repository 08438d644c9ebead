"""Candles and tops of books of whole runs, against a direct computation from the published rows."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.app.settings import derived_settings_of
from ingestor.config.load import load
from ingestor.config.model import Config
from ingestor.consumer import EARLIEST, Consumer
from ingestor.derived.settings import DerivedSettings
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind
from ingestor.sources.registry import markets
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.testbed.broker import DevBroker
from tests.e2e.harness import make_config, running
from tests.e2e.processes import Venue, command, environment, simulated_venue
from tests.reference.derived import DerivedCheck

MS = 1_000_000
SYMBOLS = 4
DERIVED = {
    "candle_intervals_ms": [200, 1_000],
    "candle_wait_ms": 300,
    "book_top_levels": 3,
    "book_top_interval_ms": 100,
}
SETTINGS = DerivedSettings((200 * MS, 1_000 * MS), 300 * MS, 3, 100 * MS)
CLASSES = (
    *(RowClass.TRADE, RowClass.LEVEL, RowClass.CANDLE),
    *(RowClass.BOOK_TOP, RowClass.BOOK_TOP_LAST),
)


@pytest.fixture
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=SYMBOLS, rate_per_s=60) as venue:
        yield venue


async def published(config: Config) -> list[TickBatch]:
    """Return what is in the topics, each event once."""
    names = KafkaSettings(config.kafka.bootstrap_servers, config.kafka.topic_prefix)
    topics = [names.tick_topic(row_class) for row_class in CLASSES]
    servers = config.kafka.bootstrap_servers
    async with (
        asyncio.timeout(60),
        Consumer(servers, topics, start=EARLIEST, stop_at_end=True) as consumer,
    ):
        batches = [batch async for batch in consumer]
        assert not consumer.holes
        return batches


def checked(batches: list[TickBatch]) -> DerivedCheck:
    check = DerivedCheck(SETTINGS)
    check.add(batches)
    assert check.candles() > 10 * SYMBOLS
    assert check.tops() > 2 * 15 * SYMBOLS
    return check


async def test_a_run_over_a_disconnect_and_its_replay(venue: Venue, tmp_path: Path) -> None:
    with DevBroker() as broker:
        config = make_config(
            broker.bootstrap_servers,
            [venue.feed | {"channels": ["trades", "book"]} | DERIVED],
            tmp_path / "cache",
            kafka={"encoding": "binary"},
            recorder={"path": tmp_path / "recordings"},
        )
        async with running(config) as run:
            await run.subscribed()
            await asyncio.sleep(1.5)
            await asyncio.to_thread(venue.control, "cut")
            await run.until(lambda: bool(run.ingestor.supervisor.statistics().reconnects))
            await run.subscribed()
            await asyncio.sleep(2.0)
            drained = await run.stop()
        assert drained.status.unaccounted == drained.lost == 0
        live = await published(config)
    check = checked(live)
    gaps = [
        row
        for batch in live
        if batch.row_class is RowClass.CANDLE
        for row in batch.rows[batch.rows["kind"] == Kind.GAP]
    ]
    assert [row["side"] for row in gaps] == [Cause.DISCONNECT] * SYMBOLS
    for candles in check.last.values():
        whole = [not candle.is_partial for _, candle in sorted(candles.items())]
        assert not whole[0]
        assert any(whole[: len(whole) // 2])
        assert any(whole[len(whole) // 2 :])
        assert whole.count(False) >= 4  # the first of each interval, and around the disconnect

    replay = Replay(ReplayOptions((tmp_path / "recordings",)))
    replay.pipeline.derive(derived_settings_of(config, replay.table))
    again = checked([batch for result in replay.results() for batch in result.batches])
    for key, candles in again.last.items():
        assert candles.items() <= check.last[key].items()
        assert len(candles) > len(check.last[key]) - 5  # live went on for a moment


@pytest.mark.slow
async def test_two_workers_derive_the_same(venue: Venue, tmp_path: Path) -> None:
    """Whoever carries what, the derived rows are those that the published rows give."""
    lines = venue.toml().replace("[[feeds]]\n", "[[feeds]]\nstreams_per_connection = 2\n")
    lines += "".join(f"{name} = {value}\n" for name, value in DERIVED.items())
    with DevBroker() as broker:
        file = tmp_path / "c.toml"
        file.write_text(
            f'[kafka]\nbootstrap_servers = "{broker.bootstrap_servers}"\npartitions = 3\n{lines}'
        )
        arguments = ("run", str(file), "--json", "--workers", "2")
        with command(*arguments, env=environment(tmp_path)) as run:
            run.until(lambda: venue.frames > 2_500)
            run.process.send_signal(signal.SIGTERM)
            ended = run.end()
        assert ended.status == 0, ended.err
        assert ended.result["unaccounted"] == 0
        checked(await published(load(file, markets())))
