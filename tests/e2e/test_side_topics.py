"""What is published beside the ticks follows the JSON Schemas in schemas/."""

from __future__ import annotations

from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from ingestor.codec import encoder, schema_name
from ingestor.kafka.settings import (
    AUXILIARY_TOPICS,
    BOOK_SNAPSHOT,
    DEAD_LETTER,
    INSTRUMENTS,
    QUARANTINE,
    STATUS,
)
from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.auxiliary_queue import dead_letter, void
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import TOPICS, make_config, running, side_records
from tests.fakes.rows import table_of, trades
from tests.fakes.schemas import check

SESSION = bytes(range(16))
EVENTS = {
    "session_start",
    "session_end",
    "feed_up",
    "feed_down",
    "refused",
    "unacknowledged",
}


async def test_every_side_topic_of_a_run_follows_its_schema(tmp_path: Path) -> None:
    prefix = "sides."
    topics = {f"{prefix}{name}": 1 for name in (*TOPICS.values(), *AUXILIARY_TOPICS)}
    with DevBroker(topics) as broker:
        async with Simulator(SimulatorOptions(symbols=3, rate_per_s=50.0)) as venue:
            venue.faults.bad_symbols = {venue.symbols[2]}
            feed = {
                "venue": "simulated",
                "symbols": ["*"],
                "url": venue.addresses[0],
                "rest_url": venue.rest,
            }
            config = make_config(
                broker.bootstrap_servers, [feed], tmp_path, kafka={"topic_prefix": prefix}
            )
            async with running(config) as run:
                await run.subscribed()
                await run.until(lambda: run.status.frames > 50)
                venue.faults.malformed = 2
                await run.until(lambda: run.status.rejected >= 2)
                venue.cut()
                supervisor = run.ingestor.supervisor
                await run.until(lambda: bool(supervisor.statistics().reconnects))
                await run.subscribed()
                # The simulated venue always answers.
                assert run.ingestor.publishing is not None
                run.ingestor.publishing.unacknowledged(
                    next(iter(supervisor.slots)).planned, ["trade.X"]
                )
                await run.stop()
        read = {
            topic: [value for _, value in await side_records(config, topic)]
            for topic in (STATUS, INSTRUMENTS, BOOK_SNAPSHOT, QUARANTINE)
        }
        for topic, values in read.items():
            told = await schemas_told(broker.bootstrap_servers, f"{prefix}{topic}")
            assert told == [schema_name(topic)] * len(values)
    found = {topic: check(topic, values) for topic, values in read.items()}
    assert {record["event"] for record in found[STATUS]} == EVENTS
    assert len(found[INSTRUMENTS]) == 3
    assert all(record["bids"] and record["asks"] for record in found[BOOK_SNAPSHOT])
    assert {record["reason"] for record in found[QUARANTINE]} == {"malformed"}


async def schemas_told(servers: str, topic: str) -> list[str]:
    """Return the header `schema` of each record of a topic of one partition."""
    async with AIOKafkaConsumer(bootstrap_servers=servers) as consumer:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        [end] = (await consumer.end_offsets([place])).values()
        told: list[str] = []
        while await consumer.position(place) < end:
            for record in (await consumer.getmany(timeout_ms=100)).get(place, []):
                [(name, value)] = record.headers
                assert name == "schema"
                told.append(value.decode())
    return told


def test_refused_records_and_their_void_numbers_follow_their_schemas() -> None:
    letters = []
    for encoding in ("json", "binary"):
        writer = encoder(encoding, table_of(), SESSION)
        records = writer.encode(RowClass.TRADE, trades(1), 7)
        letters += [dead_letter("md.trades.v1", 3, SESSION, 7, one, "x") for one in records]
    keys = [record["key"] for record in check(DEAD_LETTER, letters)]
    assert [type(key) for key in keys] == [str, type(None)]
    check(STATUS, [void("md.trades.v1", 3, SESSION, 7, 2, "MessageSizeTooLarge")])
