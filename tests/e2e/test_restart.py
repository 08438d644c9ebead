"""kill -9 and start again: the next session names the last one, and marks where rows may miss."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ingestor.cli.topic_text import rows_of
from ingestor.codec import decode
from ingestor.consumer import EARLIEST, Consumer
from tests.e2e.processes import Ended, Venue, command, environment, ingestor, simulated_venue
from tests.kafka.broker import KafkaEndpoint

pytestmark = pytest.mark.kafka
SYMBOLS = 3


@pytest.fixture
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=SYMBOLS, rate_per_s=40) as venue:
        yield venue


class Trial:
    """One configuration, started several times."""

    def __init__(self, folder: Path, venue: Venue, servers: str, *, workers: int = 0) -> None:
        self.prefix = f"restart-{uuid4().hex[:8]}."
        self.env = environment(
            folder,
            INGESTOR__KAFKA__BOOTSTRAP_SERVERS=servers,
            INGESTOR__KAFKA__TOPIC_PREFIX=self.prefix,
            INGESTOR__KAFKA__PARTITIONS="2",
        )
        self._venue = venue
        self._servers = servers
        self._file = folder / "ingestor.toml"
        self._file.write_text(venue.toml())
        self._workers = ["--workers", str(workers)] if workers else []

    def run(self, stop: signal.Signals, **settings: str) -> Ended | None:
        """Run until a few hundred rows were sent, then send a signal."""
        arguments = ("run", str(self._file), "--json", *self._workers)
        with command(*arguments, env=self.env | settings) as running:
            frames = self._venue.frames
            running.until(lambda: self._venue.frames > frames + 300)
            time.sleep(1.2)  # the numbers are noted each second
            running.process.send_signal(stop)
            if stop == signal.SIGKILL:
                running.process.wait()
                return None
            return running.end()

    async def topic(self, name: str) -> list[dict[str, Any]]:
        """Return a topic's rows, or its records where it has none."""
        found: list[dict[str, Any]] = []
        topic = self.prefix + name
        async with Consumer(self._servers, [topic], start=EARLIEST, stop_at_end=True) as consumer:
            async for _, _, value in consumer.records():
                if name == "status.v1":
                    found.append(json.loads(value))
                else:
                    found += rows_of(decode(value).batch)
        return found

    async def starts(self) -> list[dict[str, Any]]:
        records = await self.topic("status.v1")
        return [record for record in records if record["event"] == "session_start"]


@pytest.mark.rows("I14", "P1")
async def test_kill_9_is_named_and_marked(
    tmp_path: Path, venue: Venue, kafka: KafkaEndpoint
) -> None:
    trial = Trial(tmp_path, venue, kafka.bootstrap_servers)
    trial.run(signal.SIGKILL)
    again_ns = time.time_ns()
    recordings = tmp_path / "recordings"
    ended = trial.run(signal.SIGTERM, INGESTOR__RECORDER__PATH=str(recordings))
    assert ended is not None
    assert ended.status == 0, ended.err

    first, second = await trial.starts()
    assert "previous" not in first
    previous = second["previous"]
    assert previous["session"] == first["session"]
    assert previous["ended"] is False
    gaps = 0
    for channel in ("trades", "quotes", "book"):
        rows = await trial.topic(f"{channel}.v1")
        noted = previous["sequences"][f"{trial.prefix}{channel}.v1"]
        before = [row for row in rows if row["ts_recv"] < again_ns]
        assert sum(number + 1 for number in noted.values()) > 0
        assert len(before) > 100
        assert "restart" not in {row.get("cause") for row in before}
        after = [row for row in rows if row["ts_recv"] >= again_ns]
        by_instrument: dict[str, list[dict[str, Any]]] = {}
        for row in after:
            by_instrument.setdefault(row["instrument"], []).append(row)
        assert len(by_instrument) == SYMBOLS
        for found in by_instrument.values():
            assert found[0]["kind"] == "gap"
            assert found[0]["cause"] == "restart"
            assert Counter(row.get("cause") for row in found)["restart"] == 1
        gaps += sum(row["kind"] == "gap" for row in after)

    replayed = ingestor("replay", str(recordings), "--json", env=trial.env)
    report = json.loads(replayed.stdout.splitlines()[-1])
    assert report["rows"]["gap"] == gaps >= 3 * SYMBOLS


@pytest.mark.rows("I14")
async def test_a_session_that_drained_is_named_too(
    tmp_path: Path, venue: Venue, kafka: KafkaEndpoint
) -> None:
    trial = Trial(tmp_path, venue, kafka.bootstrap_servers)
    trial.run(signal.SIGTERM)
    trial.run(signal.SIGTERM)
    first, second = await trial.starts()
    assert (second["previous"]["session"], second["previous"]["ended"]) == (first["session"], True)
    rows = Counter()  # type: Counter[str]
    for channel in ("trades", "quotes", "book"):
        rows[channel] = len(await trial.topic(f"{channel}.v1"))
        noted = second["previous"]["sequences"][f"{trial.prefix}{channel}.v1"]
        assert 0 < sum(number + 1 for number in noted.values()) < rows[channel]


@pytest.mark.rows("I14")
async def test_each_worker_names_its_own(
    tmp_path: Path, venue: Venue, kafka: KafkaEndpoint
) -> None:
    trial = Trial(tmp_path, venue, kafka.bootstrap_servers, workers=2)
    trial.env["INGESTOR__FEEDS"] = json.dumps([{**venue.feed, "streams_per_connection": 5}])
    trial.run(signal.SIGTERM)
    trial.run(signal.SIGTERM)
    starts = await trial.starts()
    assert len(starts) == 4
    assert [("previous" in start) for start in starts] == [False, False, True, True]
    assert {start["previous"]["session"] for start in starts[2:]} == {
        start["session"] for start in starts[:2]
    }
