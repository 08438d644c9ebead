"""Create missing topics, and check those that exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ingestor.kafka.error_codes import error_name, error_of
from ingestor.kafka.settings import (
    AUXILIARY_TOPICS,
    BOOK_SNAPSHOT,
    COMPACTED,
    KafkaSettings,
)
from ingestor.model.row_classes import ROW_CLASSES

log = structlog.get_logger(__name__)

_CREATED: Final = {0, 36}  # NONE, TOPIC_ALREADY_EXISTS
# Codes that come back until somebody changes the configuration, ours or the cluster's:
# INVALID_TOPIC, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_CONFIG, POLICY_VIOLATION.
_FINAL: Final = {17, 37, 38, 40, 44}
_CLEANUP: Final = "cleanup.policy"


@dataclass(slots=True)
class TopicReport:
    """Hold the cluster's answers about our topics.

    refused: why a topic could not be created, by topic; it may exist all the same. final: those of
    them that will be refused again. compacted: tick topics that delete rows by key. can_create:
    False when the broker has no CreateTopics call, so that first use has to create topics. is_read:
    False when the cluster can't be reached.
    """

    refused: dict[str, str] = field(default_factory=dict)
    final: set[str] = field(default_factory=set)
    compacted: list[str] = field(default_factory=list)
    can_create: bool = True
    is_read: bool = False

    def refuse(self, topic: str, code: int, text: str | None) -> None:
        """Note why a topic was not created.

        Args:
            topic: Name of the topic.
            code: Kafka's error code.
            text: The broker's words, if any.
        """
        self.refused[topic] = text or error_name(error_of(code))
        if code in _FINAL:
            self.final.add(topic)


async def prepare_topics(
    settings: KafkaSettings, topics: Iterable[str] | None = None
) -> TopicReport:
    """Create topics that are missing, where `create_topics` is set, and find compacted ones.

    Args:
        settings: names, partitions and configuration of the topics.
        topics: full names of those to look at; all by default.

    Returns:
        What was refused. A cluster that can't be reached refuses nothing: starting a producer
        says why it can't.
    """
    report = TopicReport()
    wanted = [
        new_topic
        for new_topic in _new_topics(settings)
        if topics is None or new_topic.name in set(topics)
    ]
    admin = AIOKafkaAdminClient(**settings.client_options())
    try:
        await admin.start()
        if settings.create_topics:
            await _create(admin, wanted, report)
        ticks = {
            settings.tick_topic(row_class)
            for row_class in ROW_CLASSES
            if not row_class.is_compacted
        }
        names = [request.name for request in wanted if request.name in ticks]
        report.compacted = await compacted_topics(admin, names)
        report.is_read = True
    except (errors.KafkaError, OSError, TimeoutError) as failure:
        log.debug("kafka.topics.not_read", reason=repr(failure))
    finally:
        await admin.close()
    return report


async def _create(
    admin: AIOKafkaAdminClient, wanted: Sequence[NewTopic], report: TopicReport
) -> None:
    try:
        response: Any = await admin.create_topics(list(wanted))
    except (errors.IncompatibleBrokerVersion, AttributeError):
        # AttributeError: aiokafka stumbles over a cluster that names no controller.
        log.info("kafka.topics.created_by_use", reason="the broker has no CreateTopics")
        report.can_create = False
        return
    except errors.KafkaError as failure:
        if failure.retriable:
            raise
        for topic in wanted:
            report.refused[topic.name] = error_name(failure)
        return
    for topic, code, *text in response.topic_errors:
        if code == 0:
            log.info("kafka.topic.created", topic=topic)
        elif code not in _CREATED:
            report.refuse(topic, code, text[0] if text else None)


async def compacted_topics(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> list[str]:
    """Return those of the topics whose cleanup policy compacts.

    A topic whose configuration isn't shown to us, or that doesn't exist, is not among them.
    """
    asked = [
        ConfigResource(ConfigResourceType.TOPIC, topic, configs={_CLEANUP: ""}) for topic in topics
    ]
    try:
        answers: list[Any] = await admin.describe_configs(asked) if asked else []
    except errors.KafkaError as failure:  # no such call, or it isn't allowed
        if failure.retriable:
            raise
        log.debug("kafka.topics.not_described", reason=repr(failure))
        return []
    found = []
    for answer in answers:
        for code, _, _, topic, entries in answer.resources:
            policies = [entry[1] for entry in entries if entry[0] == _CLEANUP]
            if code == 0 and any("compact" in (policy or "") for policy in policies):
                found.append(topic)
    return sorted(found)


def compaction_text(topics: Iterable[str]) -> str:
    """Return the sentence that refuses compacted tick topics."""
    which = ", ".join(topics)
    return (
        f"topic {which}: cleanup.policy compacts, so that Kafka would delete all but the last "
        "row of each instrument; set cleanup.policy=delete, or use another kafka.topic_prefix"
    )


def _new_topics(settings: KafkaSettings) -> list[NewTopic]:
    ticks = [row_class.topic for row_class in ROW_CLASSES]
    wide = {*ticks, BOOK_SNAPSHOT}
    compacted = COMPACTED | {row_class.topic for row_class in ROW_CLASSES if row_class.is_compacted}
    retention = {_CLEANUP: "delete", "retention.ms": str(settings.retention_ms)}
    # aiokafka demands an assignment exactly when the replication factor is the broker's default.
    assignments: dict[int, list[int]] | None = {} if settings.replication_factor == -1 else None
    return [
        NewTopic(
            settings.topic(name),
            settings.partitions if name in wide else 1,
            settings.replication_factor,
            replica_assignments=assignments,
            topic_configs={_CLEANUP: "compact"} if name in compacted else retention,
        )
        for name in (*ticks, *AUXILIARY_TOPICS)
    ]
