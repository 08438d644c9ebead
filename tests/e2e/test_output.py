"""The readers of standard output and error go away, don't read, or their disk is full.

The program goes on, drains, and its exit status and ledger are what they would have been.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.testbed.broker import DevBroker
from tests.e2e.harness import TOPICS
from tests.e2e.processes import ROOT, Venue, environment, ingestor, simulated_venue, until

COMMAND = [sys.executable, "-m", "ingestor"]


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=5, rate_per_s=20) as venue:
        yield venue


@pytest.fixture(scope="module")
def broker() -> Iterator[DevBroker]:
    with DevBroker({f"md.{topic}": 2 for topic in TOPICS.values()}) as broker:
        yield broker


class Output:
    """What a stream of the process is connected to; `spoil` makes it fail while it runs."""

    def __init__(self, how: str) -> None:
        self.how = how
        if how == "full disk":
            self.writing = os.open("/dev/full", os.O_WRONLY)
            return
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        if how == "unread":
            os.write(self.writing, b"x" * 4095)

    def spoil(self) -> None:
        os.close(self.writing)
        if self.how == "gone":
            os.close(self.reading)

    def close(self) -> None:
        if self.how == "unread":
            os.close(self.reading)


@pytest.mark.rows("I9")
@pytest.mark.parametrize(
    ("which", "how", "workers"),
    [
        ("stderr", "gone", 0),
        ("stderr", "unread", 0),
        ("stderr", "full disk", 0),
        ("stdout", "gone", 0),
        ("both", "unread", 0),
        ("both", "gone", 2),
    ],
)
def test_nobody_reads(
    tmp_path: Path, venue: Venue, broker: DevBroker, how: str, which: str, workers: int
) -> None:
    config = tmp_path / "ingestor.toml"
    config.write_text(venue.toml())
    spoiled = Output(how)
    kept = tmp_path / "kept"
    arguments = ["run", str(config), "--json"]
    if workers:
        arguments += ["--workers", str(workers)]
    with kept.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers),
            stdin=subprocess.DEVNULL,
            stdout=file if which == "stderr" else spoiled.writing,
            stderr=file if which == "stdout" else spoiled.writing,
            cwd=ROOT,
        )
    try:
        frames = venue.frames
        until(lambda: venue.frames > frames + 200 or process.poll() is not None)
        assert process.poll() is None
        spoiled.spoil()
        time.sleep(1.5)  # the view prints a line each second
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        spoiled.close()
    if which == "stderr":
        result = json.loads(kept.read_text().splitlines()[-1])
        assert result["unaccounted"] == result["lost"] == result["rows_pending"] == 0
        assert result["rows_acked"] > 100
    elif which == "stdout":
        assert "  balanced" in kept.read_text()
        assert "Traceback" not in kept.read_text()


@pytest.mark.rows("I9")
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_never_open(
    tmp_path: Path, venue: Venue, broker: DevBroker, closed: str
) -> None:
    config = tmp_path / "ingestor.toml"
    config.write_text(venue.toml())
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "run", str(config), "--seconds", "1"],
        env=environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    if ">&-" not in closed:
        assert "balanced" in done.stdout


@pytest.mark.parametrize("command", ["feeds", "config schema", "check"])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(
    tmp_path: Path, venue: Venue, command: str
) -> None:
    config = tmp_path / "ingestor.toml"
    config.write_text(venue.toml())
    arguments = [*command.split(), *([str(config)] if command == "check" else [])]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment(tmp_path),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


def test_consume_into_head_ends_quietly(tmp_path: Path, venue: Venue, broker: DevBroker) -> None:
    env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers)
    config = tmp_path / "ingestor.toml"
    config.write_text(venue.toml())
    assert ingestor("run", str(config), "--seconds", "1", env=env).returncode == 0
    consume = " ".join([*COMMAND, "consume", "md.trades.v1", "--from", "beginning"])
    done = subprocess.run(
        ["sh", "-c", f"{consume} | head -1"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
