"""Metadata of instruments out of their topic."""

from __future__ import annotations

from dataclasses import replace

import orjson

from ingestor.consumer import read_metadata
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import table_of
from tests.unit.consumer.test_consumer import publish

TOPIC = "md.instruments.v1"


async def test_the_newest_of_each_instrument_and_nothing_foreign() -> None:
    one, two = table_of(2)
    newer = replace(one, revision=2, tick_size="0.5")
    records = [{"key": item.key, **item.to_json(), "ts": 1} for item in (one, two, newer)]
    values = [orjson.dumps(record) for record in records]
    with DevBroker({TOPIC: 1}) as broker:
        await publish(broker.bootstrap_servers, TOPIC, 0, [*values, b"hello", b'{"key": 1}'])
        found = await read_metadata(broker.bootstrap_servers)
        assert found == {one.key: newer, two.key: two}
        assert await read_metadata(broker.bootstrap_servers, "absent.") == {}
