"""Keep the topics there: create them at the start and when they vanish, refuse compacted ones."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer

from ingestor.kafka.aiokafka_compat import create_topics_by_use
from ingestor.kafka.settings import AUXILIARY_TOPICS, KafkaSettings
from ingestor.kafka.topics import TopicReport, compaction_text, prepare_topics
from ingestor.model.backoff import Backoff
from ingestor.model.errors import SinkUnavailable
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.sinks.kafka.produce_request import ProduceClient

log = structlog.get_logger(__name__)

FIND_TIMEOUT_S: Final = 5.0  # for metadata to show topics that were created a moment ago
FIND_AGAIN_S: Final = 0.1
LOOK_S: Final = 2.0  # between looks at what is missing
CHECK_S: Final = 60.0  # between checks of the cleanup policies
CREATE_AGAIN: Final = Backoff(base_s=2.0, cap_s=30.0, floor_s=1.0)


class TopicKeeper:
    """Creates topics and says which tick topics must not be written to."""

    def __init__(self, settings: KafkaSettings, refused: dict[str, str]) -> None:
        """Create the topic keeper.

        Args:
            settings: names and configuration of the topics.
            refused: gets the tick topics that must not be written to, with the reason.
        """
        self.is_final = False  # what `find` or `prepare` raised comes back until somebody acts
        self._settings = settings
        self._refused = refused
        self._row_classes = [*STANDARD_CLASSES]
        self._report = TopicReport()
        self._was_found = False
        self._told: set[str] = set()

    @property
    def _ticks(self) -> list[str]:
        return [self._settings.tick_topic(row_class) for row_class in self._row_classes]

    @property
    def _all(self) -> list[str]:
        return [
            *self._ticks,
            *map(self._settings.topic, (*AUXILIARY_TOPICS, *self._settings.more_topics)),
        ]

    def want(self, row_class: RowClass) -> None:
        """Keep the topic of a class there, too, from now on."""
        if row_class not in self._row_classes:
            self._row_classes.append(row_class)

    async def prepare(self) -> None:
        """Create what is missing.

        Raises:
            SinkUnavailable: at the start, when a tick topic is compacted.
        """
        self.is_final = False
        if self._was_found:
            return
        self._report = await prepare_topics(self._settings, self._all)
        if self._report.compacted:
            self.is_final = True
            raise SinkUnavailable("Kafka", compaction_text(self._report.compacted))

    async def find(self, producer: AIOKafkaProducer) -> None:
        """Read the metadata of all topics; say which are not there.

        Raises:
            SinkUnavailable: when no tick topic is there; the text names each with the reason.
        """
        client = producer.client
        if not self._settings.create_topics or not self._report.can_create:
            await create_topics_by_use(producer, self._all)
        client.set_topics(self._all)
        missing = await self._missing(producer)
        if len(missing) == len(self._ticks) and not self._was_found:
            self.is_final = self._report.final.issuperset(missing)
            text = "; ".join(f"topic {topic}: {reason}" for topic, reason in missing.items())
            raise SinkUnavailable("Kafka", text)
        self._was_found = True
        for topic, reason in missing.items():
            self._tell(topic, reason)
        for topic, reason in self._report.refused.items():
            if not client.cluster.partitions_for_topic(topic):
                self._tell(topic, f"it could not be created: {reason}")

    async def _missing(self, producer: AIOKafkaProducer) -> dict[str, str]:
        """Return the tick topics that are not there, with the reason; new ones may be late."""
        cluster = producer.client.cluster
        deadline_s = time.monotonic() + (0 if self._was_found else FIND_TIMEOUT_S)
        while True:
            await producer.client.force_metadata_update()
            missing: dict[str, str] = {}
            is_explained = True
            for topic in self._ticks:
                if cluster.partitions_for_topic(topic):
                    continue
                if topic in self._report.refused:
                    missing[topic] = f"it could not be created: {self._report.refused[topic]}"
                elif topic in cluster.unauthorized_topics:
                    missing[topic] = "TopicAuthorizationFailed"
                else:
                    missing[topic] = "it does not exist and the broker does not create it"
                    is_explained = False
            if is_explained or time.monotonic() >= deadline_s:
                return missing
            await asyncio.sleep(FIND_AGAIN_S)

    async def run(self, producer: AIOKafkaProducer, produce: ProduceClient) -> None:
        """Create topics that vanish, and look for compacted ones, until cancelled."""
        attempt, checked_s = 0, time.monotonic()
        asked = self._all
        while True:
            await asyncio.sleep(LOOK_S if not attempt else CREATE_AGAIN.delay_s(attempt, _half))
            if asked != self._all:
                asked = self._all
                producer.client.set_topics(asked)
            missing = [topic for topic in asked if not produce.partitions(topic)]
            is_due = time.monotonic() - checked_s >= CHECK_S
            if not missing:
                attempt = 0
                self._told.clear()
            if missing or is_due:
                attempt += bool(missing)
                checked_s = time.monotonic()
                await self._renew(producer, missing or self._ticks)

    async def _renew(self, producer: AIOKafkaProducer, topics: list[str]) -> None:
        report = await prepare_topics(self._settings, topics)
        for topic, reason in report.refused.items():
            self._tell(topic, f"it could not be created: {reason}")
        for topic in topics:
            if topic in report.compacted:
                self._refused[topic] = "its cleanup.policy compacts"
                self._tell(topic, "its cleanup.policy compacts")
            else:
                self._refused.pop(topic, None)
        await producer.client.force_metadata_update()

    def _tell(self, topic: str, reason: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            log.error("kafka.topic.unavailable", topic=topic, reason=reason)


def _half() -> float:
    return 0.5 + random.random() / 2
