"""The commands against each other: venue, broker and ingestor in processes of their own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingestor.app import ingestor as app
from tests.conftest import Call
from tests.e2e.processes import ROOT, environment, ingestor

TOPICS = ("md.trades.v1", "md.quotes.v1", "md.book.v1")
PREFIX = "INGESTOR__KAFKA__TOPIC_PREFIX"


@contextmanager
def running(*arguments: str, env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a command that prints a line once it is up; end it afterwards, and see that it ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ingestor", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()
        yield process, line
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in err) == (0, False), err
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    arguments = ("simulate", "--port", "0", "--symbols", "5", "--rate", "20")
    with running(*arguments, env=environment(tmp_path_factory.mktemp("venue"))) as (_, line):
        yield json.loads(line)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    topics = [part for topic in TOPICS for part in ("--topic", f"{topic}:4")]
    env = environment(tmp_path_factory.mktemp("broker"))
    with running("dev-broker", *topics, env=env) as (_, line):
        yield line.strip()


@pytest.fixture
def config(tmp_path: Path, venue: dict[str, Any]) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(
        '[[feeds]]\nvenue = "simulated"\nsymbols = ["*"]\n'
        f'url = "{venue["addresses"][0]}"\nrest_url = "{venue["rest"]}"\n'
    )
    return path


def test_run_then_consume_then_audit(call: Call, tmp_path: Path, config: Path, broker: str) -> None:
    settings = {"INGESTOR__KAFKA__BOOTSTRAP_SERVERS": broker, PREFIX: "read."}
    env = environment(tmp_path, **settings)
    done = ingestor("run", str(config), "--seconds", "1", env=env)
    assert done.returncode == 0, done.stderr
    assert "balanced" in done.stdout
    read = call("consume", "read.trades.v1", "--from", "beginning", "--to-end", "--json", env=env)
    assert read.returncode == 0, read.stderr
    rows = [json.loads(line) for line in read.stdout.splitlines()]
    assert {row["kind"] for row in rows} == {"trade"}
    sequences = [row["sequence"] for row in rows if row["instrument"].endswith("S00001-USD")]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    limited = call("consume", "read.book.v1", "--from", "beginning", "--limit", "3", env=env)
    assert len(limited.stdout.splitlines()) == 3
    assert " reset " in limited.stdout.splitlines()[0]
    status = call("consume", "read.status.v1", "--from", "beginning", "--to-end", env=env)
    assert "session_start" in {json.loads(line)["event"] for line in status.stdout.splitlines()}
    proof = call("audit", "--json", env=env)
    assert proof.returncode == 0, proof.stderr
    verdict = json.loads(proof.stdout)
    assert verdict["complete"]
    assert verdict["duplicates"] == 0
    assert verdict["rows"] >= len(rows)


@pytest.mark.rows("P2")
def test_sigterm_drains_and_is_a_clean_stop(tmp_path: Path, config: Path, broker: str) -> None:
    settings = {"INGESTOR__KAFKA__BOOTSTRAP_SERVERS": broker, PREFIX: "sigterm."}
    with running("run", str(config), env=environment(tmp_path, **settings)) as (_, line):
        assert "connections" in line


@pytest.mark.rows("P2")
def test_sigterm_while_a_broker_accepts_and_never_answers(tmp_path: Path, config: Path) -> None:
    """Nothing was read yet: there is nothing to wait for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=address)
        process = subprocess.Popen(
            [sys.executable, "-m", "ingestor", "run", str(config)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert "starting" in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
    assert (process.returncode, "Traceback" in err) == (0, False), err


def test_a_broker_that_is_not_there_is_one_line(
    call: Call, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CONNECT_KAFKA_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=address)
    done = call("run", str(config), env=env)
    lines = [one for one in done.stderr.splitlines() if one.startswith("ingestor: ")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"ingestor: Kafka at {address} is unavailable: ")
    assert "Traceback" not in done.stderr


def test_a_http_port_in_use_is_one_line(tmp_path: Path, config: Path, broker: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = {"INGESTOR__KAFKA__BOOTSTRAP_SERVERS": broker, "INGESTOR__HTTP__PORT": port}
        done = ingestor("run", str(config), env=environment(tmp_path, **settings))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ingestor: the HTTP server can't listen on 127.0.0.1:{port}: Address already in use; "
        "set http.port (0 takes a free one)"
    )


def test_a_venue_that_is_not_there_stops_no_other(tmp_path: Path, config: Path) -> None:
    config.write_text(
        f'{config.read_text()}\n[[feeds]]\nvenue = "kraken"\nsymbols = ["BTC-USD"]\n'
        'rest_url = "http://127.0.0.1:9"\n'
    )
    folder = str(tmp_path / "recordings")
    arguments = ("record", str(config), "--path", folder, "--seconds", "1", "--json")
    done = ingestor(*arguments, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["frames_received"] > 0
    (unavailable,) = [line for line in done.stderr.splitlines() if "catalogue.unavailable" in line]
    assert "kraken" in unavailable
    (waiting,) = [line for line in done.stderr.splitlines() if "symbol.waiting" in line]
    assert "BTC-USD" in waiting
    assert "Traceback" not in done.stderr


def test_symbols_that_do_not_exist_are_one_line(call: Call, tmp_path: Path, config: Path) -> None:
    config.write_text(config.read_text().replace('"*"', '"S00001-UDS"'))
    done = call("run", str(config), env=environment(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"ingestor: {config}: feeds[0].symbols: simulated spot has no")
    assert done.stderr.count("\n") == 1


def test_record_repair_replay_compact(
    call: Call, tmp_path: Path, config: Path, broker: str
) -> None:
    env = environment(tmp_path, INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker)
    folder = tmp_path / "recordings"
    done = ingestor("record", str(config), "--path", str(folder), "--seconds", "1", env=env)
    assert done.returncode == 0, done.stderr

    repaired = call("repair", str(folder), "--json", env=env)
    assert repaired.returncode == 0, repaired.stderr
    assert all(not one["cuts"] for one in json.loads(repaired.stdout))

    first = call("replay", str(folder), "--audit", "--json", env=env)
    assert first.returncode == 0, first.stderr
    report = orjson.loads(first.stdout.splitlines()[-1])
    assert report["unaccounted"] == report["rejected"] == 0
    assert report["gaps"] == 0  # the end of the run is no hole
    assert report["rows"]["trade"] > 0

    target = ("--kafka", "--prefix", "replay.", "--json")
    again = call("replay", str(folder), *target, env=env)
    assert again.returncode == 0, again.stderr
    assert orjson.loads(again.stdout.splitlines()[-1])["digest"] == report["digest"]
    read = call("consume", "replay.trades.v1", "--from", "beginning", "--to-end", env=env)
    assert len(read.stdout.splitlines()) == report["rows"]["trade"]

    compacted = call("compact", str(folder), "--json", env=env)
    assert compacted.returncode == 0, compacted.stderr
    assert json.loads(compacted.stdout)["rows"] == sum(report["rows"].values())
    once_more = json.loads(call("compact", str(folder), "--json", env=env).stdout)
    assert (once_more["written"], once_more["rows"]) == ([], 0)
