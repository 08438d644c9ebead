"""What is published beside the ticks follows the JSON Schemas in schemas/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from ingestor.codec import encoder
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

SCHEMAS = Path(__file__).parents[2] / "schemas"
SESSION = bytes(range(16))
EVENTS = {
    "session_start",
    "session_end",
    "feed_up",
    "feed_down",
    "refused",
    "unacknowledged",
}


def validator(topic: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{topic}.schema.json").read_text(encoding="utf-8"))
    assert schema["$id"] == f"md.{topic}+json/1"
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check(topic: str, values: list[bytes]) -> list[dict[str, Any]]:
    """Validate records, and see that the schema would notice a field too many or too few."""
    judge = validator(topic)
    records: list[dict[str, Any]] = [orjson.loads(value) for value in values]
    for record in records:
        judge.validate(record)
        assert not judge.is_valid(record | {"surprise": 1})
        for name in record:
            assert not judge.is_valid({key: record[key] for key in record if key != name})
    return records


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
    found = {topic: check(topic, values) for topic, values in read.items()}
    assert {record["event"] for record in found[STATUS]} == EVENTS
    assert len(found[INSTRUMENTS]) == 3
    assert all(record["bids"] and record["asks"] for record in found[BOOK_SNAPSHOT])
    assert {record["reason"] for record in found[QUARANTINE]} == {"malformed"}


def test_refused_records_and_their_void_numbers_follow_their_schemas() -> None:
    letters = []
    for encoding in ("json", "binary"):
        writer = encoder(encoding, table_of(), SESSION)
        records = writer.encode(RowClass.TRADE, trades(1), 7)
        letters += [dead_letter("md.trades.v1", 3, SESSION, 7, one, "x") for one in records]
    keys = [record["key"] for record in check(DEAD_LETTER, letters)]
    assert [type(key) for key in keys] == [str, type(None)]
    check(STATUS, [void("md.trades.v1", 3, SESSION, 7, 2, "MessageSizeTooLarge")])
