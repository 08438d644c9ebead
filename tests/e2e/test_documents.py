"""The examples of the documents run as they are written, but for addresses and dates."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingestor.config.model import Config
from ingestor.consumer import SyncConsumer
from ingestor.model.errors import TopicAbsent
from ingestor.testbed.broker import DevBroker
from tests.e2e.harness import TOPICS
from tests.e2e.processes import (
    PATIENCE_S,
    ROOT,
    Venue,
    command,
    environment,
    ingestor,
    simulated_venue,
)

pytestmark = pytest.mark.slow


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language; there is at least one."""
    pattern = rf"^```{language}\n(.*?)^```"
    found = re.findall(pattern, (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, page
    return found


def examples(page: str) -> str:
    """Return the Python of a page as one program: later examples use names of earlier ones."""
    return "\n".join(blocks(page, "python"))


@contextmanager
def python(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a process of its own; kill it at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        cwd=folder,
        env=environment(folder, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with DevBroker({f"md.{topic}": 4 for topic in TOPICS.values()}) as broker:
        yield broker


@pytest.fixture
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=5, rate_per_s=20) as venue:
        yield venue


@pytest.fixture
def config(tmp_path: Path, venue: Venue) -> str:
    path = tmp_path / "ingestor.toml"
    path.write_text(venue.toml())
    return str(path)


def test_the_readme_reads_trades(tmp_path: Path, config: str, broker: DevBroker) -> None:
    servers = broker.bootstrap_servers
    env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=servers)
    program = examples("README.md").replace("localhost:9092", servers)
    with command("run", config, env=env), python(program, tmp_path) as reading:
        assert reading.stdout is not None
        line = reading.stdout.readline()
    assert re.fullmatch(r"simulated:spot:S0000\d-USD \d+ x 10\^- \d\n", line), line


def images(servers: str) -> int:
    """Return how many images of books were published."""
    topic = "md.book_snapshot.v1"
    try:
        with SyncConsumer(servers, topic, start="earliest", stop_at_end=True) as consumer:
            list(consumer)
            return consumer.consumer.foreign_records
    except TopicAbsent:
        return 0


def test_consuming_as_documented(tmp_path: Path, config: str, broker: DevBroker) -> None:
    servers = broker.bootstrap_servers
    env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=servers)
    program = examples("docs/consuming.md").replace("localhost:9092", servers)
    with command("run", config, env=env) as run:
        run.until(lambda: images(servers) >= 5)
        with python(program, tmp_path) as reading:
            text, _ = reading.communicate(timeout=PATIENCE_S)
            assert reading.returncode == 0, text
    lines = text.splitlines()
    rows = next(n for n, line in enumerate(lines) if line.endswith(" rows"))
    assert {line.split()[0] for line in lines[:rows]} == {"trades", "quotes"}, text
    assert "decimal[" in text
    assert "datetime[ns, UTC]" in text
    assert lines[-1].startswith("simulated:spot:S00001-USD ")


def test_recordings_are_read_as_documented(tmp_path: Path, config: str, broker: DevBroker) -> None:
    folder = str(tmp_path / "recordings")
    env = environment(tmp_path)
    recorded = ingestor("record", config, "--path", folder, "--seconds", "1", env=env)
    assert recorded.returncode == 0, recorded.stderr
    program = examples("docs/recording.md").replace("localhost:9092", broker.bootstrap_servers)
    program = program.replace("2026-11-21T", "2026-01-01T").replace(
        "frame = trades.to_polars()", "print(trades.to_polars().columns)"
    )
    with python(program, tmp_path) as reading:
        text, _ = reading.communicate(timeout=PATIENCE_S)
        assert reading.returncode == 0, text
    *batches, columns = text.splitlines()
    assert batches
    assert "'canonical'" in columns


@pytest.mark.parametrize("page", ["README.md", "docs/recording.md"])
def test_configuration_in_the_documents_is_accepted(page: str) -> None:
    feeds = [{"venue": "kraken", "symbols": ["BTC-USD"]}]
    for block in blocks(page, "toml"):
        Config.model_validate({"feeds": feeds, **tomllib.loads(block)})
