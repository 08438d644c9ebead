"""How `ingestor run` ends: in order on the first SIGTERM, at once on the second."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.config.model import Config
from ingestor.testbed.broker import DevBroker
from tests.e2e.harness import TOPICS, published
from tests.e2e.processes import (
    PATIENCE_S,
    Venue,
    command,
    environment,
    simulated_venue,
)
from tests.kafka.broker import free_ports

DRAIN_S = 10.0  # what is promised
BUSY_S = 8.0  # what a busy machine may add


@pytest.fixture
def venue() -> Iterator[Venue]:
    """Two thousand messages a second."""
    with simulated_venue(symbols=20, rate_per_s=2000 / 60) as venue:
        yield venue


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with DevBroker({f"md.{topic}": 4 for topic in TOPICS.values()}) as broker:
        yield broker


@pytest.fixture
def config(tmp_path: Path, venue: Venue) -> str:
    path = tmp_path / "ingestor.toml"
    path.write_text(venue.toml())
    return str(path)


@pytest.mark.rows("P2")
async def test_sigterm_under_load_drains(
    tmp_path: Path, config: str, venue: Venue, broker: DevBroker
) -> None:
    env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers)
    with command("run", config, "--json", env=env) as running:
        running.until(lambda: venue.frames >= 5_000)
        running.terminate()
        ended = running.end()
    assert ended.status == 0, ended.err
    assert ended.took_s < DRAIN_S + BUSY_S
    result = ended.result
    assert result["unaccounted"] == result["lost"] == result["rows_pending"] == 0
    assert result["rows_acked"] == result["rows_appended"] > 10_000
    assert result["frames_received"] > 4_000
    found = await published(
        Config.model_validate({"kafka": {"bootstrap_servers": broker.bootstrap_servers}})
    )
    assert (found.total, found.holes) == (result["rows_acked"], 0)


@pytest.mark.rows("P2")
def test_a_second_sigterm_leaves_at_once_and_says_what_is_lost(
    tmp_path: Path, config: str, venue: Venue, broker: DevBroker
) -> None:
    settings = {
        "INGESTOR__KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "INGESTOR__LIMITS__DRAIN_S": "300",
    }
    with command("run", config, env=environment(tmp_path, **settings)) as running:
        running.until(lambda: venue.frames >= 1_000)
        broker.set_down()
        frames = venue.frames
        running.until(lambda: venue.frames >= frames + 2_000)
        running.terminate()
        running.until(lambda: "ingestor.stopping" in running.err)
        assert running.process.poll() is None  # it waits for the broker
        running.terminate()
        ended = running.end()
    assert ended.status == 1
    assert ended.took_s < BUSY_S
    last = ended.err.splitlines()[-1]
    assert last.startswith("ingestor: left at once, ")
    assert last.endswith(" rows were not acknowledged")
    assert int(last.split()[4].replace(",", "")) > 1_000


@pytest.mark.rows("P2")
def test_a_drain_that_fails_says_what_is_lost(
    tmp_path: Path, config: str, venue: Venue, broker: DevBroker
) -> None:
    settings = {
        "INGESTOR__KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "INGESTOR__LIMITS__DRAIN_S": "1",
    }
    with command("run", config, "--json", env=environment(tmp_path, **settings)) as running:
        running.until(lambda: venue.frames >= 1_000)
        broker.set_down()
        frames = venue.frames
        running.until(lambda: venue.frames >= frames + 1_000)
        running.terminate()
        ended = running.end()
    assert ended.status == 1
    assert ended.took_s < DRAIN_S + BUSY_S
    result = ended.result
    assert result["unaccounted"] == 0
    assert result["lost"] == result["rows_pending"] > 500
    assert f"ingestor: {result['lost']:,} rows could not be delivered in time" in ended.err
    assert "Traceback" not in ended.err


def test_sigterm_before_the_broker_was_ever_reached(tmp_path: Path, config: str) -> None:
    """Nothing was read, so nothing is lost, and there is nothing to wait for."""
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=servers)
    with command("run", config, "--json", env=env) as running:
        running.until(lambda: "kafka.unavailable" in running.err)
        running.terminate()
        ended = running.end()
    assert ended.status == 0, ended.err
    assert ended.took_s < BUSY_S
    assert ended.result["frames_received"] == ended.result["unaccounted"] == 0
    assert "Traceback" not in ended.err


def test_sigterm_while_instruments_are_loading(tmp_path: Path, venue: Venue) -> None:
    """A catalogue that doesn't answer: no socket was opened, so the stop is clean, and at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = tmp_path / "ingestor.toml"
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        path.write_text(venue.toml().replace(venue.rest_url, address))
        with command("run", str(path), env=environment(tmp_path)) as running:
            silent.settimeout(PATIENCE_S)
            connection, _ = silent.accept()
            with connection:
                running.terminate()
                ended = running.end()
    assert ended.status == 0, ended.err
    assert ended.took_s < BUSY_S
    assert "Traceback" not in ended.err
