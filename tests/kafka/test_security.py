"""Kafka over TLS and SASL, as a configuration says it: sink, consumer and commands."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme
from confluent_kafka.admin import AdminClient

from ingestor.app.settings import kafka_settings
from ingestor.config.load import load
from ingestor.consumer import EARLIEST, Consumer
from ingestor.model.batch import TickBatch
from ingestor.model.errors import SinkUnavailable
from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sources.registry import markets
from tests.conftest import Call
from tests.e2e.processes import environment, simulated_venue
from tests.fakes.rows import Ledger, by_key, table_of, trades
from tests.kafka.broker import SASL_PASSWORD, SASL_USER, KafkaBroker
from tests.kafka.test_sink import running

TABLE = table_of()
WRONG_PASSWORD = "canary-of-a-wrong-password"
SECURE = ("scram", "plain", "certificate")


@pytest.fixture(scope="module")
def broker(kafka_tools: None) -> Iterator[KafkaBroker]:
    required = {"listener.name.ssl.ssl.client.auth": "required"}
    with KafkaBroker(required, sasl=True, tls=True) as broker:
        yield broker


def connected() -> set[object]:
    ours = psutil.Process().net_connections("tcp")
    return {one.laddr for one in ours if one.status != psutil.CONN_LISTEN}


@pytest.fixture(autouse=True)
async def _every_connection_ends_with_its_test() -> AsyncIterator[None]:
    """TLS ends with a goodbye, which Kafka answers late after a refusal; aiokafka doesn't wait.

    A loop that is closed before leaves an open socket behind, a warning in whatever test is next.
    """
    before = connected()
    yield
    async with asyncio.timeout(60):
        while connected() - before:
            await asyncio.sleep(0.01)


def kafka_lines(broker: KafkaBroker, tmp_path: Path, how: str = "scram", **changes: Any) -> str:
    """The [kafka] section of a configuration; the password is in a file of its own."""
    secret = tmp_path / "password"
    secret.write_text(f"{changes.pop('password', SASL_PASSWORD)}\n")
    section = {
        "topic_prefix": f"t{uuid.uuid4().hex}.",
        "partitions": 2,
        "ssl_cafile": str(broker.ca_file),
    }
    if how == "certificate":
        section |= {
            "bootstrap_servers": broker.tls_bootstrap_servers,
            "security_protocol": "SSL",
            "ssl_certfile": str(broker.client_cert),
            "ssl_keyfile": str(broker.client_key),
        }
    else:
        section |= {
            "bootstrap_servers": broker.sasl_tls_bootstrap_servers,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": {"scram": "SCRAM-SHA-512", "plain": "PLAIN"}[how],
            "sasl_username": SASL_USER,
            "sasl_password_file": str(secret),
        }
    pairs = (f"{name} = {json.dumps(value)}\n" for name, value in (section | changes).items())
    return "[kafka]\n" + "".join(pairs)


def sink_of(text: str, tmp_path: Path) -> KafkaSink:
    path = tmp_path / "c.toml"
    path.write_text(text)
    settings = kafka_settings(load(path, markets()).kafka)
    return KafkaSink(settings, TABLE, Ledger(), session=uuid.uuid4().bytes)


def strange_authority(tmp_path: Path) -> str:
    path = tmp_path / "strange.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return str(path)


@pytest.mark.parametrize("how", SECURE)
async def test_rows_come_back_over_tls(broker: KafkaBroker, tmp_path: Path, how: str) -> None:
    sink = sink_of(kafka_lines(broker, tmp_path, how), tmp_path)
    async with running(sink):
        sink.submit(TickBatch(RowClass.TRADE, trades(500), TABLE), 1)
        assert await sink.drain(60) == 0
    options = sink.settings.client_options()
    servers = options.pop("bootstrap_servers")
    topics = [sink.settings.tick_topic(RowClass.TRADE)]
    consuming = Consumer(servers, topics, start=EARLIEST, stop_at_end=True, **options)
    async with consuming as consumer:
        batches = [batch async for batch in consumer]
    assert by_key(batches) == by_key([TickBatch(RowClass.TRADE, trades(500), TABLE)])


REFUSALS = [
    ("scram", {"password": WRONG_PASSWORD}, "invalid credentials"),
    ("plain", {"password": WRONG_PASSWORD}, "Invalid username or password"),
    (
        "scram",
        {"sasl_mechanism": "SCRAM-SHA-256"},
        "doesn't offer the SASL mechanism",
    ),
    ("scram", {"ssl_cafile": "strange"}, "certificate isn't trusted: unable to get local"),
    ("certificate", {"ssl_cafile": "strange"}, "certificate isn't trusted"),
]


@pytest.mark.rows("K8")
@pytest.mark.parametrize(("how", "changes", "text"), REFUSALS)
async def test_what_the_broker_refuses_is_said_at_once(
    broker: KafkaBroker, tmp_path: Path, how: str, changes: dict[str, str], text: str
) -> None:
    if "ssl_cafile" in changes:
        changes = {"ssl_cafile": strange_authority(tmp_path)}
    sink = sink_of(kafka_lines(broker, tmp_path, how, **changes), tmp_path)
    with pytest.raises(SinkUnavailable, match=text) as refused:
        async with running(sink):
            pass
    assert refused.value.sink == f"Kafka at {sink.settings.bootstrap_servers}"
    assert WRONG_PASSWORD not in str(refused.value)


async def test_without_a_certificate_of_ours_the_broker_ends_the_connection(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    text = kafka_lines(broker, tmp_path, "certificate")
    lines = [one for one in text.splitlines() if "certfile" not in one and "keyfile" not in one]
    sink = sink_of("\n".join(lines), tmp_path)
    with pytest.raises(SinkUnavailable):
        async with running(sink, timeout_s=3):
            pass


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The line that a failed command says; nothing secret, and no traceback, is in its output."""
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    for secret in (SASL_PASSWORD, WRONG_PASSWORD):
        assert secret not in said
    [line] = [one for one in done.stderr.splitlines() if one.startswith("ingestor: ")]
    return line


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"password": WRONG_PASSWORD}, "invalid credentials"),
        ({"ssl_cafile": "strange"}, "its certificate isn't trusted"),
    ],
    ids=["password", "authority"],
)
def test_run_ends_with_one_line_that_says_why(
    call: Call, broker: KafkaBroker, tmp_path: Path, changes: dict[str, str], text: str
) -> None:
    if "ssl_cafile" in changes:
        changes = {"ssl_cafile": strange_authority(tmp_path)}
    path = tmp_path / "c.toml"
    with simulated_venue(symbols=1, rate_per_s=1) as venue:
        path.write_text(kafka_lines(broker, tmp_path, **changes) + venue.toml())
        env = environment(tmp_path, INGESTOR__LOG__LEVEL="debug")
        line = one_line(call("run", str(path), env=env))
    address = broker.sasl_tls_bootstrap_servers
    assert line.startswith(f"ingestor: Kafka at {address} is unavailable: ")
    assert text in line


def test_run_consume_and_audit_take_the_security_of_a_configuration(
    call: Call, broker: KafkaBroker, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    env = environment(tmp_path, INGESTOR__LOG__LEVEL="debug")
    with simulated_venue(symbols=2, rate_per_s=20) as venue:
        section = kafka_lines(broker, tmp_path, topic_prefix="secured.")
        path.write_text(section + venue.toml())
        ran = call("run", str(path), "--seconds", "1", env=env)
    assert ran.returncode == 0, ran.stderr
    reading = ("--config", str(path), "--from", "beginning")
    read = call("consume", "secured.trades.v1", *reading, "--to-end", "--json", env=env)
    assert read.returncode == 0, read.stderr
    rows = [json.loads(line) for line in read.stdout.splitlines()]
    proved = call("audit", *reading, "--json", env=env)
    assert proved.returncode == 0, proved.stderr
    report = json.loads(proved.stdout)
    assert report["complete"]
    assert report["rows"] >= len(rows) > 0
    for done in (ran, read, proved):
        assert SASL_PASSWORD not in done.stdout + done.stderr

    examined = call("doctor", str(path), env=env)
    assert re.search(r"^ok +kafka login +SASL_SSL as ", examined.stdout, re.MULTILINE)

    path.write_text(kafka_lines(broker, tmp_path, password=WRONG_PASSWORD))
    refused = call("doctor", str(path), env=env)
    assert refused.returncode == 1
    assert re.search(r"^failed +kafka login .*invalid credentials", refused.stdout, re.MULTILINE)
    assert WRONG_PASSWORD not in refused.stdout + refused.stderr
    for command in (("consume", "secured.trades.v1"), ("audit",)):
        assert "invalid credentials" in one_line(
            call(*command, "--config", str(path), "--from", "beginning", env=env)
        )


@pytest.mark.rows("K8")
def test_a_topic_that_is_not_there_is_one_line_and_is_not_created(
    call: Call, broker: KafkaBroker, tmp_path: Path
) -> None:
    env = environment(tmp_path)
    servers = ("--bootstrap-servers", broker.bootstrap_servers)
    for command in (("consume", "absent.trades.v1"), ("audit", "absent.trades.v1")):
        line = one_line(call(*command, *servers, env=env))
        where = f"Kafka at {broker.bootstrap_servers}"
        assert line == f"ingestor: {where} has no topic absent.trades.v1, or doesn't show it to us"
    assert "absent.trades.v1" not in topics_of(broker)


def topics_of(broker: KafkaBroker) -> list[str]:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    return list(admin.list_topics(timeout=60).topics)
