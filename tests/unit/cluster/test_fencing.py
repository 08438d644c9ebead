"""A fence holds only where it was written: everywhere that a worker may write to."""

from __future__ import annotations

from typing import Any

from ingestor.cluster.fencing import partitions_written, topics_written
from ingestor.kafka.settings import AUXILIARY_TOPICS, KafkaSettings
from ingestor.model.row_classes import ROW_CLASSES

SETTINGS = KafkaSettings("127.0.0.1:1", topic_prefix="md.")


class Client:
    """A client whose cluster has these topics."""

    def __init__(self, **partitions: set[int]) -> None:
        self._partitions = {name.replace("_", "."): found for name, found in partitions.items()}

    async def fetch_all_metadata(self) -> Any:
        return self

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self._partitions.get(topic)


def test_all_topics_are_named() -> None:
    topics = topics_written(SETTINGS)
    assert {SETTINGS.tick_topic(one) for one in ROW_CLASSES} <= set(topics)
    assert {SETTINGS.topic(one) for one in AUXILIARY_TOPICS} <= set(topics)
    assert "md.claims.v1" in topics
    assert len(topics) == len(set(topics))


async def test_all_partitions_are_asked_for() -> None:
    client: Any = Client(md_trades_v1={2, 0, 1}, md_claims_v1={0}, other={0})
    found = [(one.topic, one.partition) for one in await partitions_written(client, SETTINGS)]
    assert found == [
        ("md.trades.v1", 0),
        ("md.trades.v1", 1),
        ("md.trades.v1", 2),
        ("md.claims.v1", 0),
    ]
