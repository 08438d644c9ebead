"""Reads instruments' metadata from their topic."""

from __future__ import annotations

from typing import Any

import orjson

from ingestor.consumer.consumer import Consumer
from ingestor.consumer.positions import EARLIEST
from ingestor.kafka.settings import INSTRUMENTS
from ingestor.model.errors import MALFORMED, TopicAbsent
from ingestor.model.instruments import Instrument

_BESIDE: frozenset[str] = frozenset({"key", "session", "ts"})  # fields of the record alone


async def read_metadata(
    bootstrap_servers: str, topic_prefix: str = "md.", **options: Any
) -> dict[str, Instrument]:
    """Return each instrument's newest metadata, by key; none where there is no such topic.

    Args:
        bootstrap_servers: Addresses.
        topic_prefix: Of the topics.
        options: Passed on to aiokafka (security).

    Raises:
        SinkUnavailable: Where no broker answers.
    """
    topic = topic_prefix + INSTRUMENTS
    found: dict[str, Instrument] = {}
    try:
        async with Consumer(
            bootstrap_servers, topic, start=EARLIEST, stop_at_end=True, **options
        ) as consumer:
            async for partition, record in consumer.raw_records():
                try:
                    fields = orjson.loads(record.value or b"")
                    metadata = {name: fields[name] for name in fields.keys() - _BESIDE}
                    found[fields["key"]] = Instrument.from_json(metadata)
                except MALFORMED as failure:
                    consumer.skip(partition, record.offset, repr(failure))
    except TopicAbsent:
        return {}
    return found
