"""Secrets of the configuration and the environment are in nothing that the program shows."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ingestor.app import ingestor as app
from ingestor.testbed.broker import DevBroker
from tests.conftest import Call
from tests.e2e.harness import TOPICS
from tests.e2e.processes import command, environment, simulated_venue
from tests.kafka.broker import free_ports

CANARIES = [f"canary{number:02}Zq" for number in range(12)]
PAGES = ("/", "/metrics", "/metrics/feeds", "/status.json", "/readyz", "/healthz", "/config")


def leaked(*texts: str) -> list[str]:
    return [canary for canary in CANARIES if any(canary in text for text in texts)]


def test_nothing_shows_a_secret(tmp_path: Path) -> None:
    """A proxy that refuses, a Kafka password, a log at DEBUG, every page of the admin server."""
    c = CANARIES
    with (
        simulated_venue(symbols=2, rate_per_s=10) as venue,
        DevBroker({f"md.{topic}": 1 for topic in TOPICS.values()}) as broker,
    ):
        proxy = f'transport = "websockets"\nproxy = "http://{c[0]}:{c[1]}@127.0.0.1:{free_ports(1)[0]}"\n'
        config = tmp_path / "ingestor.toml"
        config.write_text(
            f'[log]\nlevel = "debug"\n[kafka]\nsasl_username = "me"\nsasl_password = "{c[2]}"\n'
            + venue.toml()
            + proxy
        )
        port = free_ports(1)[0]
        env = environment(
            tmp_path,
            INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers,
            INGESTOR__HTTP__PORT=str(port),
            AWS_SECRET_ACCESS_KEY=c[3],
            HTTPS_PROXY=f"http://{c[4]}:{c[5]}@127.0.0.1:9",
            ALL_PROXY=f"socks5://{c[6]}@127.0.0.1:9",
            DATABASE_URL=f"postgres://me:{c[7]}@db/x",
        )
        with command("run", str(config), "--json", env=env) as running:
            running.until(lambda: "connection.refused" in running.err)
            pages = [read(f"http://127.0.0.1:{port}{page}") for page in PAGES]
            running.terminate()
            ended = running.end()
    assert ended.status == 0, ended.err
    assert leaked(ended.out, ended.err, *pages) == []


def test_what_kafka_refuses_is_told_without_the_password(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CONNECT_KAFKA_S", 1.0)
    c = CANARIES
    with simulated_venue(symbols=1, rate_per_s=1) as venue, DevBroker({}) as broker:
        config = tmp_path / "ingestor.toml"
        config.write_text(venue.toml())
        secret = tmp_path / "password"
        secret.write_text(c[8])
        env = environment(
            tmp_path,
            INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers,
            INGESTOR__KAFKA__SECURITY_PROTOCOL="SASL_PLAINTEXT",
            INGESTOR__KAFKA__SASL_MECHANISM="PLAIN",
            INGESTOR__KAFKA__SASL_USERNAME="me",
            INGESTOR__KAFKA__SASL_PASSWORD_FILE=str(secret),
        )
        run = call("run", str(config), "--seconds", "1", env=env)
        shown = [call(*arguments, str(config), env=env) for arguments in
                 (("config", "show"), ("config", "check"), ("doctor",))]  # fmt: skip
    assert run.returncode == 1
    texts = [text for done in (run, *shown) for text in (done.stdout, done.stderr)]
    assert leaked(*texts) == []
    assert "Traceback" not in "".join(texts)


def test_an_error_in_the_configuration_does_not_quote_it(call: Call, tmp_path: Path) -> None:
    c = CANARIES
    config = tmp_path / "ingestor.toml"
    feed = {"venue": "okx", "symbols": ["*"], "transport": "websockets"}
    for text in (
        f'[kafka]\nsasl_password = ["{c[9]}"]\n',
        f'[kafka]\nsasl_pasword = "{c[9]}"\n',
        f'[kafka]\nsasl_password = "{c[9]}\n',
    ):
        config.write_text(text)
        done = call("config", "check", str(config), env=environment(tmp_path))
        assert done.returncode == 2
        assert leaked(done.stdout, done.stderr) == []
    for changes in (
        {"proxy": f"htp:/{c[10]}@x"},
        {"proxy": [c[10]]},
        {"url": f"wss://u:{c[10]}@x"},
        {"url": f"wss://x?apiKey={c[11]}"},
    ):
        env = environment(tmp_path, INGESTOR__FEEDS=json.dumps([feed | changes]))
        done = call("config", "check", env=env)
        assert leaked(done.stdout, done.stderr) == []
        assert "Traceback" not in done.stderr


def read(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            content: bytes = answer.read()
    except urllib.error.HTTPError as refused:
        content = refused.read()
    return content.decode()
