"""A recording replayed to Apache Kafka, and read from there again, as a whole and by time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ingestor import history as recordings
from ingestor.history.topics import KafkaRecording
from ingestor.model.batch import TickBatch
from ingestor.model.errors import IngestError
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Rows
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from tests.e2e.processes import environment, ingestor
from tests.kafka.broker import KafkaEndpoint

CAPTURE = "binance_spot_btcusdt_20240808.jsonl.zst"


@pytest.fixture
def prefix() -> str:
    return f"replay{uuid.uuid4().hex[:12]}."


async def replay_to_kafka(
    kafka: KafkaEndpoint, prefix: str, path: Path, folder: Path, encoding: str
) -> None:
    env = environment(
        folder,
        INGESTOR__KAFKA__BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
        INGESTOR__KAFKA__PARTITIONS="3",
        INGESTOR__KAFKA__ENCODING=encoding,
    )
    arguments = ("--venue", "binance", "--market", "spot", "--kafka", "--prefix", prefix)
    done = await asyncio.to_thread(ingestor, "replay", str(path), *arguments, env=env)
    assert done.returncode == 0, done.stderr


def rows_of(batches: Iterable[TickBatch]) -> dict[tuple[RowClass, str], bytes]:
    """All rows, in order per instrument."""
    found: dict[tuple[RowClass, str], list[Rows]] = {}
    for batch in batches:
        for number in np.unique(batch.rows["instrument"]).tolist():
            rows = batch.rows[batch.rows["instrument"] == number].copy()
            rows["instrument"] = 0
            found.setdefault((batch.row_class, batch.instruments[number].key), []).append(rows)
    return {stream: np.concatenate(rows).tobytes() for stream, rows in found.items()}


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_what_is_replayed_to_kafka_is_the_recording(
    kafka: KafkaEndpoint, captures: Path, tmp_path: Path, prefix: str, encoding: str
) -> None:
    path = captures / CAPTURE
    await replay_to_kafka(kafka, prefix, path, tmp_path, encoding)
    recorded = recordings.open(path, venue="binance", market="spot")
    topics = recordings.open(f"kafka://{kafka.bootstrap_servers}/{prefix}")
    expected = rows_of(recorded)
    assert {row_class for row_class, _ in expected} == set(STANDARD_CLASSES)
    assert await asyncio.to_thread(rows_of, topics) == expected

    # A range by time, one kind, in a loop; the recording gives the same.
    times = recorded.to_arrow("trades")["ts_recv"].to_numpy()
    start, end = int(times[len(times) // 3]), int(times[len(times) // 2])
    chosen: dict[str, Any] = {
        "start": start,
        "end": end,
        "kinds": ["trades"],
        "symbols": ["BTCUSDT"],
    }
    part = recordings.open(f"kafka://{kafka.bootstrap_servers}/{prefix}", **chosen)
    assert isinstance(part, KafkaRecording)
    found = rows_of([batch async for batch in part])
    assert found == rows_of(recordings.open(path, venue="binance", market="spot", **chosen))
    assert list(found) == [(RowClass.TRADE, "binance:spot:BTCUSDT")]
    assert len(await asyncio.to_thread(part.to_arrow)) > 100


async def test_records_and_topics_of_a_replay_say_so(
    kafka: KafkaEndpoint, captures: Path, tmp_path: Path, prefix: str
) -> None:
    path = captures / "binance.jsonl.zst"
    await replay_to_kafka(kafka, prefix, path, tmp_path, "json")
    headers = set()
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
        partitions = [TopicPartition(f"{prefix}trades.v1", number) for number in range(3)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                headers |= {tuple(record.headers) for record in records}
    [session] = Replay(ReplayOptions((path,), "binance", "spot")).sessions
    assert headers == {
        (
            ("schema", b"md.trades.v1+json/1"),
            ("replay", b"1"),
            ("recording", session.encode()),
        )
    }
    assert await retention_ms(kafka, f"{prefix}trades.v1") == "-1"


async def retention_ms(kafka: KafkaEndpoint, topic: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        [resource] = answer.resources
        return str(next(entry[1] for entry in resource[4] if entry[0] == "retention.ms"))
    finally:
        await admin.close()


async def test_live_topics_are_refused_until_permitted(
    kafka: KafkaEndpoint, captures: Path, tmp_path: Path, prefix: str
) -> None:
    path = captures / "binance.jsonl.zst"
    env = environment(
        tmp_path,
        INGESTOR__KAFKA__BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
        INGESTOR__KAFKA__TOPIC_PREFIX=prefix,
        INGESTOR__KAFKA__PARTITIONS="1",
    )
    arguments = ("replay", str(path), "--venue", "binance", "--market", "spot", "--kafka")
    refused = ingestor(*arguments, "--prefix", prefix, env=env)
    assert refused.returncode == 2
    assert "is the prefix of the live topics" in refused.stderr
    url = f"kafka://{kafka.bootstrap_servers}/"
    with pytest.raises(IngestError):  # nothing was created
        await asyncio.to_thread(rows_of, recordings.open(url + prefix))

    elsewhere = ingestor(*arguments, env=env)
    assert elsewhere.returncode == 0, elsewhere.stderr
    permitted = ingestor(*arguments, "--prefix", prefix, "--allow-live-topics", env=env)
    assert permitted.returncode == 0, permitted.stderr
    for name in (prefix, f"replay.{prefix}"):
        found = await asyncio.to_thread(rows_of, recordings.open(url + name))
        assert found == rows_of(recordings.open(path, venue="binance", market="spot"))
