"""Recording beside publishing when the disk fills up, or when the process is killed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from ingestor.model.timestamps import SECOND
from ingestor.recording.format import HOUR_NS, LOST, Decided, Line, Recv
from ingestor.recording.reader import Problems, chain_lines, find_chains
from ingestor.recording.repair import repair_all
from ingestor.recording.writer_thread import RecorderState
from ingestor.testbed.broker import DevBroker
from tests.e2e.harness import Running, make_config, published, running
from tests.e2e.processes import Venue, command, environment, simulated_venue
from tests.faults.disk import small_disk

MIB = 1 << 20
RESUMES_S = 30.0  # what is promised
REPAIRS_S = 5.0
LOST_NS_MAX = SECOND


@pytest.fixture
def venue() -> Iterator[Venue]:
    """Three thousand messages a second."""
    with simulated_venue(symbols=20, rate_per_s=3_000 / 60) as venue:
        yield venue


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small") as folder:
        yield folder


def lines_of(folder: Path) -> tuple[list[Line], Problems]:
    problems = Problems()
    found: list[Line] = []
    for chain in find_chains([folder], problems):
        for _, lines in chain_lines(chain, problems):
            found += lines
    return found, problems


def metric(run: Running, name: str, **labels: str) -> float:
    families: dict[str, Metric] = {one.name: one for one in run.ingestor.view.families()}
    samples = families[name].samples
    return next(one.value for one in samples if labels.items() <= one.labels.items())


@pytest.mark.rows("P3")
@pytest.mark.slow
async def test_a_full_disk_costs_publishing_nothing(
    venue: Venue, disk: Path, tmp_path: Path
) -> None:
    """8 MiB to record to: it fails, is counted and shown, and goes on when there is space."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(8 * MIB - 256 * 1024))
    with DevBroker() as broker:
        config = make_config(
            broker.bootstrap_servers,
            [venue.feed],
            tmp_path / "cache",
            recorder={"path": disk, "buffer_bytes": MIB},
        )
        async with running(config) as run:
            recorder = run.ingestor.recorder
            assert recorder is not None
            await run.until(lambda: recorder.statistics().lines_lost > 1_000)
            found = recorder.statistics()
            assert (found.state, found.failures > 0) == (RecorderState.FAILED, True)
            assert metric(run, "ingestor_recorder_state", state="failed") == 1
            assert metric(run, "ingestor_recorder_lost_lines") >= found.lines_lost
            assert metric(run, "ingestor_recorder_lost_bytes") >= found.bytes_lost
            ready = run.ingestor.view.ready()
            assert ready.ok
            assert ready.checks["recorder"] == "failed"
            assert "No space left" in str(ready.checks["recorder_failure"])
            acked = run.status.acked
            await run.until(lambda: run.status.acked > acked + 10_000)

            ballast.unlink()
            freed_s = time.monotonic()
            await run.until(lambda: recorder.statistics().state is RecorderState.RECORDING)
            assert time.monotonic() - freed_s < RESUMES_S
            assert "recorder_failure" not in run.ingestor.view.ready().checks
            written = recorder.statistics().lines_written
            await run.until(lambda: recorder.statistics().lines_written > written + 3_000)
            drained = await run.stop()
        topics = await published(config)
    status, statistics = drained.status, recorder.statistics()
    assert (drained.lost, status.unaccounted, status.shed, status.conflated) == (0, 0, 0, 0)
    assert (status.acked, topics.holes) == (topics.total, 0)

    lines, problems = lines_of(disk)
    received = sum(isinstance(line, Recv) for line in lines)
    said = [line.decision for line in lines if isinstance(line, Decided)]
    lost = sum(one["lines"] for one in said if one["action"] == LOST)
    assert lost == statistics.lines_lost > 0
    assert sum(one["bytes"] for one in said if one["action"] == LOST) == statistics.bytes_lost
    assert received + lost >= status.frames
    assert [str(one) for one in problems.kept if "missing" not in str(one)] == []


@pytest.mark.rows("P1")
def test_killed_ingestors_lose_a_second_each(venue: Venue, tmp_path: Path) -> None:
    check_kills(venue, tmp_path, batches=1, at_once=2)


@pytest.mark.long(minutes=2)
@pytest.mark.rows("P1")
def test_twenty_killed_ingestors_lose_a_second_each(venue: Venue, tmp_path: Path) -> None:
    check_kills(venue, tmp_path, batches=5, at_once=4)


def check_kills(venue: Venue, tmp_path: Path, *, batches: int, at_once: int) -> None:
    noise = random.Random(5)
    config = tmp_path / "ingestor.toml"
    config.write_text(venue.toml())
    for batch in range(batches):
        folders = [tmp_path / f"{batch}-{number}" for number in range(at_once)]
        killed = kill_recordings(folders, config, tmp_path, noise)
        for folder, killed_ns in zip(folders, killed, strict=True):
            began_s = time.monotonic()
            *_, report = repair_all(folder)  # several if the hour ended
            assert time.monotonic() - began_s < REPAIRS_S
            assert not report.error
            assert report.unfinished or killed_ns % HOUR_NS < SECOND
            assert killed_ns - report.last_ts_ns < LOST_NS_MAX
            lines, problems = lines_of(folder)
            assert problems.kept == []
            assert [line.n for line in lines if line.n >= 0][-1] + 1 >= len(lines) - 1 > 1_000


def kill_recordings(
    folders: list[Path], config: Path, home: Path, noise: random.Random
) -> list[int]:
    """Record into each folder by a process of its own; kill each at a moment of its own."""
    killed = []
    with ExitStack() as stack:
        env = environment(home)
        arguments = ("record", str(config), "--path")
        running_ones = [
            stack.enter_context(command(*arguments, str(folder), env=env)) for folder in folders
        ]
        for one, folder in zip(running_ones, folders, strict=True):
            one.until(partial(has_frames, folder))
        for one in running_ones:
            time.sleep(noise.uniform(0.0, 0.7))
            assert one.process.poll() is None, "it ended before it was killed"
            killed.append(time.time_ns())
            one.process.kill()
            one.process.wait()
    return killed


def has_frames(folder: Path) -> bool:
    return any(file.stat().st_size for file in folder.rglob("*.zst.*"))
