"""Say in words what Kafka refuses now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ingestor.sinks.kafka.auxiliary_topic import AuxiliaryTopic


def refused_now(
    apart: Iterable[tuple[str, int, str]],
    refused_topics: Mapping[str, str],
    side: Mapping[str, AuxiliaryTopic],
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return a text for each topic and reason, and how many partitions of each topic are held.

    Args:
        apart: topic, partition and reason of each lane that is set apart.
        refused_topics: topics that must not be written to, and why.
        side: the auxiliary topics by name.
    """
    held: dict[tuple[str, str], list[int]] = {}
    for topic, partition, reason in apart:
        held.setdefault((topic, reason), []).append(partition)
    partitions: Counter[str] = Counter()
    texts = []
    for (topic, reason), numbers in sorted(held.items()):
        partitions[topic] += len(numbers)
        texts.append(_text(topic, numbers, reason))
    texts += [f"{topic}: {reason}" for topic, reason in refused_topics.items()]
    for name, records in side.items():
        reasons = records.reasons
        partitions.update({name: len(reasons)} if reasons else {})
        for reason in sorted({*reasons.values()}):
            numbers = [number for number, text in reasons.items() if text == reason]
            texts.append(_text(name, numbers, reason))
    return tuple(dict.fromkeys(texts)), dict(partitions)


def _text(topic: str, partitions: list[int], reason: str) -> str:
    return f"{topic}[{','.join(map(str, sorted(partitions)))}]: {reason}"
