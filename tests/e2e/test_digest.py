"""A live run and its recording, replayed or served again, give the same rows and digest.

Each capture is played by the emulator to the whole ingestor, which records beside publishing; what
its pipeline gave is compared with a replay of what it wrote.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ingestor.config.model import Config
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows
from ingestor.model.timestamps import SECOND
from ingestor.pipeline.pipeline import FlushResult
from ingestor.recording.format import Decided
from ingestor.recording.reader import Problems, chain_lines, find_chains
from ingestor.sinks.digest import Digest
from ingestor.sinks.kafka.overload import Step
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.emulator.faults import Fault, Faults
from ingestor.testbed.emulator.playback import survey
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.captures.test_to_kafka import feeds_of, play
from tests.e2e.harness import Running, make_config, running
from tests.reference.reader import CAPTURES, read

LEVEL = RowClass.LEVEL
PLAYED_S = 4.0
OUTAGE_PLAYED_S = 4.0
LEVEL_BYTES = 48
ONE_OF_EACH_VENUE = sorted({venue: name for name, (venue, _) in CAPTURES.items()}.values())
NO_BROKER = "127.0.0.1:1"
# Coinbase numbers the messages of a connection, book updates carry that number, and whoever
# subscribes to less than was recorded gets other numbers from the emulator.
CHANNELS = frozenset(row_class.channel for row_class in STANDARD_CLASSES)
NUMBERED_PER_CLIENT = {"coinbase"}


@dataclass
class Seen:
    """All rows of a run by stream, and their digests with and without our clock."""

    digest: Digest = field(default_factory=Digest)
    timeless: Digest = field(default_factory=lambda: Digest(receive_times=False))
    batches: dict[tuple[str, RowClass], list[Rows]] = field(default_factory=dict)

    def observe(self, result: FlushResult, _now_ns: int = 0) -> None:
        for batch in result.batches:
            self.add(batch)

    def add(self, batch: TickBatch) -> None:
        self.digest.add(batch)
        self.timeless.add(batch)
        for number in np.unique(batch.rows["instrument"]).tolist():
            rows = batch.rows[batch.rows["instrument"] == number].copy()
            rows["instrument"] = 0
            key = batch.instruments[number].key
            self.batches.setdefault((key, batch.row_class), []).append(rows)

    def rows(self) -> dict[tuple[str, RowClass], Rows]:
        return {stream: np.concatenate(found) for stream, found in self.batches.items()}

    def without_numbers(self) -> dict[tuple[str, RowClass], bytes]:
        """The rows but for our clock and the venue's numbers, to be compared."""
        found = self.rows()
        for rows in found.values():
            rows["ts_event"][(rows["flags"] & Flag.NO_VENUE_TIME) != 0] = 0
            rows["ts_recv"] = rows["sequence"] = 0
        return {stream: rows.tobytes() for stream, rows in found.items()}

    def kinds(self) -> dict[Kind, int]:
        every = np.concatenate([rows["kind"] for rows in self.rows().values()])
        return {Kind(kind): int((every == kind).sum()) for kind in np.unique(every).tolist()}


def replayed(path: Path, seen: Seen, **options: Any) -> Replay:
    """Replay; every problem of the recording fails the test."""
    problems = Problems()
    replay = Replay(ReplayOptions((path,), **options), problems=problems)
    for result in replay.results():
        seen.observe(result)
    assert [str(one) for one in problems.kept] == []
    return replay


def recorded_config(emulator: VenueEmulator, name: Path, tmp_path: Path, **sections: Any) -> Config:
    servers = sections.pop("servers", NO_BROKER)
    return make_config(
        servers,
        feeds_of(read(name), emulator),
        tmp_path / "cache",
        recorder={"path": tmp_path / "recording"},
        **sections,
    )


@pytest.mark.captures
@pytest.mark.parametrize("name", CAPTURES)
async def test_a_run_and_the_replay_of_its_recording(
    name: str, captures: Path, tmp_path: Path
) -> None:
    live = Seen()
    async with VenueEmulator(
        [captures / name], speed=MAX_SPEED, start_when="manual", snapshots="recorded"
    ) as emulator:
        config = recorded_config(emulator, captures / name, tmp_path)
        async with running(config, publish=False) as run:
            run.ingestor.flusher.observe(live.observe)
            await play(run, emulator)
            drained = await run.stop()
    assert drained.status.unaccounted == 0

    again = Seen()
    replay = replayed(tmp_path / "recording", again)
    assert again.digest.by_stream() == live.digest.by_stream()
    assert again.digest.hexdigest() == live.digest.hexdigest()
    assert {Kind.TRADE, Kind.LEVEL} & set(live.kinds())
    rows = again.rows()
    assert rows.keys() == live.rows().keys()
    for stream, expected in live.rows().items():
        assert rows[stream].tobytes() == expected.tobytes(), stream
    assert sum(one.data for one in replay.counts.values()) == sum(
        one.data for one in run.ingestor.supervisor.counts.values()
    )

    captured = await asyncio.to_thread(capture_itself, captures / name, run, tmp_path)
    if venue_of(name) in NUMBERED_PER_CLIENT:
        assert captured.without_numbers() == live.without_numbers()
    else:
        assert captured.timeless.by_stream() == live.timeless.by_stream()

    served = await served_again(name, captures, tmp_path)
    assert served.timeless.by_stream() == live.timeless.by_stream()


async def served_again(name: str, captures: Path, tmp_path: Path) -> Seen:
    """What the recorder wrote, played by the emulator to another ingestor."""
    seen = Seen()
    async with VenueEmulator(
        [tmp_path / "recording"], speed=MAX_SPEED, start_when="manual", snapshots="recorded"
    ) as emulator:
        feeds = feeds_of(read(captures / name), emulator)
        config = make_config(NO_BROKER, feeds, tmp_path / "another cache")
        async with running(config, publish=False) as run:
            run.ingestor.flusher.observe(seen.observe)
            await play(run, emulator)
            await run.stop()
    return seen


@pytest.mark.captures
@pytest.mark.parametrize("name", ONE_OF_EACH_VENUE)
async def test_a_run_with_faults_and_repairs(name: str, captures: Path, tmp_path: Path) -> None:
    """Frames lost, doubled, swapped and cut in half, a broken connection; books are repaired."""
    live = Seen()
    [recording] = survey([captures / name])
    frames = list(recording.frames())
    times_ns = [frame.ts_ns for frame in frames]
    books = [place for place, frame in enumerate(frames) if frame.changes]
    breaks = books[len(books) // 2 :: len(books) // 12]  # a client may be resubscribing at one
    wanted = Faults(
        seed=5,
        drop=0.02,
        duplicate=0.02,
        reorder=0.02,
        malformed=0.02,
        at={books[len(books) // 3]: Fault.DROP, **dict.fromkeys(breaks, Fault.DISCONNECT)},
    )
    speed = (times_ns[-1] - times_ns[0]) / SECOND / PLAYED_S
    async with VenueEmulator(
        recording, speed=speed, start_when="manual", faults=wanted
    ) as emulator:
        config = recorded_config(
            emulator,
            captures / name,
            tmp_path,
            books={"repairs_per_s": 50, "repair_backoff_s": 0.1, "repair_backoff_max_s": 0.2},
            limits={"backoff_base_s": 0.1},
        )
        async with running(config, publish=False) as run:
            run.ingestor.flusher.observe(live.observe)
            await run.subscribed()
            emulator.start()
            await run.until(emulator.finished.is_set)
            status = (await run.stop()).status
    faults = emulator.statistics.faults
    assert faults.total() > faults[Fault.DISCONNECT]  # frames too, whoever heard them
    assert 0 < status.reconnects <= faults[Fault.DISCONNECT]  # the last one may come at the end
    assert status.rejected > 0
    assert status.unaccounted == 0
    kinds = live.kinds()
    repairs = run.ingestor.supervisor.statistics().repairs
    assert repairs["resubscribed"] + repairs["fetched"] > 0
    assert kinds[Kind.GAP] > 0
    assert kinds[Kind.RESET] > len(read(captures / name).symbols) or repairs["failed"]

    again = Seen()
    replayed(tmp_path / "recording", again)
    assert again.digest.by_stream() == live.digest.by_stream()
    assert again.kinds() | {Kind.GAP: 0} == kinds | {Kind.GAP: 0}  # GAPs fall together by flushes


@pytest.mark.captures
@pytest.mark.parametrize("name", ONE_OF_EACH_VENUE)
async def test_a_run_that_paused_and_shed(name: str, captures: Path, tmp_path: Path) -> None:
    """The broker is away for a while, and there is room for few of the rows to come."""
    live = Seen()
    [recording] = survey([captures / name])
    times_ns = [frame.ts_ns for frame in recording.frames()]
    capture = read(captures / name)
    rows = len(capture.trades) + len(capture.quotes) + capture.levels
    largest = max(len(update.levels) for update in capture.updates)  # must fit once all is well
    room = max(rows // 8, largest * 3 // 2)
    with DevBroker() as broker:
        async with VenueEmulator(
            recording,
            speed=max((times_ns[-1] - times_ns[0]) / SECOND / OUTAGE_PLAYED_S, 1.0),
            start_when="manual",
        ) as emulator:
            config = recorded_config(
                emulator,
                captures / name,
                tmp_path,
                servers=broker.bootstrap_servers,
                budget={"bytes": room * LEVEL_BYTES, "pause_max_s": 0.5},
                books={"repair_backoff_s": 0.1, "repair_backoff_max_s": 0.2},
            )
            async with running(config) as run:
                run.ingestor.flusher.observe(live.observe)
                sink = run.ingestor.sink
                assert sink is not None
                steps = sink.queue.policy.taken
                await run.subscribed()
                broker.set_down()
                emulator.start()
                await run.until(lambda: steps[Step.SHED] > 0)
                broker.set_up()
                await run.until(emulator.finished.is_set)
                drained = await run.stop()
    assert min(steps[Step.PAUSE], steps[Step.RESUME], drained.status.shed) > 0
    assert (drained.lost, drained.status.unaccounted) == (0, 0)
    levels = np.concatenate([rows for (_, cls), rows in live.rows().items() if cls is LEVEL])
    assert ((levels["kind"] == Kind.GAP) & (levels["side"] == Cause.SHED)).any()

    again = Seen()
    replayed(tmp_path / "recording", again)
    assert again.digest.by_stream() == live.digest.by_stream()
    actions = decisions(tmp_path / "recording")
    assert {"pause", "resume", "invalidate"} <= actions.keys()
    # A snapshot that came before a repair was due makes it needless.
    assert actions["repair"] or run.ingestor.supervisor.statistics().repairs["needless"]


def decisions(folder: Path) -> Counter[str]:
    """Count the decisions of a recording by action."""
    found: Counter[str] = Counter()
    for chain in find_chains([folder], Problems()):
        for _, lines in chain_lines(chain, Problems()):
            found.update(one.decision["action"] for one in lines if isinstance(one, Decided))
    return found


def venue_of(name: str) -> str:
    return CAPTURES[name][0]


def capture_itself(path: Path, run: Running, folder: Path) -> Seen:
    """Replay a capture, which names neither its markets nor its ticks, with a run's instruments.

    Each market apart, as a recording of others is read as one of them.
    """
    table = run.ingestor.planned.table
    listed = folder / "instruments.jsonl"
    listed.write_bytes(b"".join(orjson.dumps(one.to_json()) + b"\n" for one in table))
    seen = Seen()
    for market in {one.market for one in table}:
        keys = frozenset(one.key for one in table if one.market == market)
        replayed(
            path,
            seen,
            venue=venue_of(path.name),
            market=market,
            symbols=keys,
            channels=CHANNELS,  # a capture may have more than a run asks for
            instruments=listed,
        )
    return seen
