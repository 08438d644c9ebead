"""Define where reading begins and ends: a word, a time, or offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from ingestor.model.errors import ConfigError
from ingestor.model.timestamps import Time, time_ns

EARLIEST: Final = "earliest"
LATEST: Final = "latest"

Offsets = Mapping[tuple[str, int], int]
Where = Time | Offsets


@dataclass(frozen=True, slots=True)
class Position:
    """A place in each partition.

    time_ns: the first record of that time (ns since the epoch, 0 = the beginning), None = the end.
    offsets: by (topic, partition), before any time; partitions that are not in it begin at
    `time_ns`.
    """

    time_ns: int | None = None
    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)


def position_of(where: Where) -> Position:
    """Return what a word, a time or offsets mean.

    Args:
        where: "earliest", "latest", a time (see `time_ns`), or offsets by (topic, partition).
            Partitions without an offset begin at the beginning.

    Raises:
        ConfigError: for what is none of these.
    """
    if isinstance(where, Mapping):
        offsets = {TopicPartition(*partition): offset for partition, offset in where.items()}
        if any(type(offset) is not int or offset < 0 for offset in offsets.values()):
            raise ConfigError("an offset is an integer of 0 or more")
        return Position(0, offsets)
    if where in {EARLIEST, LATEST}:
        return Position(0 if where == EARLIEST else None)
    return Position(time_ns(where))


class OffsetFinder:
    """Asks a broker for the offsets of positions."""

    def __init__(self, kafka: AIOKafkaConsumer, margin_ns: int | None) -> None:
        """Create the offset finder.

        Args:
            kafka: a started client.
            margin_ns: so much earlier than asked for reading begins, and so much later, and one
                record later, it ends.
        """
        self._kafka = kafka
        self._margin_ns = margin_ns

    async def starts(
        self, partitions: Sequence[TopicPartition], where: Position
    ) -> dict[TopicPartition, int]:
        """Return the offset to begin at, of each partition."""
        if where.time_ns is None:
            return await self._within(partitions, where, await self._ends(partitions))
        begins: dict[TopicPartition, int] = await self._kafka.beginning_offsets(partitions)
        if where.time_ns == 0:
            return await self._within(partitions, where, begins)
        start_ns = max(where.time_ns - (self._margin_ns or 0), 0)
        return await self._at(partitions, start_ns, begins)

    async def ends(
        self, partitions: Sequence[TopicPartition], where: Position
    ) -> dict[TopicPartition, int]:
        """Return the offset to end before, of each partition."""
        ends = await self._ends(partitions)
        if where.time_ns is None:
            return ends
        if where.offsets:
            return {
                partition: min(where.offsets.get(partition, ends[partition]), ends[partition])
                for partition in partitions
            }
        found = await self._at(partitions, where.time_ns + (self._margin_ns or 0), ends)
        if self._margin_ns is None:
            return found
        return {one: min(at + 1, ends[one]) for one, at in found.items()}

    async def _ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = await self._kafka.end_offsets(partitions)
        return found

    async def _within(
        self,
        partitions: Sequence[TopicPartition],
        where: Position,
        otherwise: dict[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        """Return the offsets asked for, none beyond the end: a broker would refuse it."""
        if not where.offsets:
            return otherwise
        ends = await self._ends(partitions)
        return {
            partition: min(where.offsets.get(partition, otherwise[partition]), ends[partition])
            for partition in partitions
        }

    async def _at(
        self, partitions: Sequence[TopicPartition], ts_ns: int, fallback: dict[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Return the offset of the first record at or after a time, else the end, of each.

        fallback: offsets for a broker that doesn't know times.
        """
        ts_ms = -(-ts_ns // 1_000_000)
        found = await self._kafka.offsets_for_times(dict.fromkeys(partitions, ts_ms))
        ends = await self._ends(partitions)
        empty = [partition for partition in partitions if found.get(partition) is None]
        if empty and not await self._knows_times(empty, ends):
            return fallback
        return {
            partition: found[partition].offset
            if found.get(partition) is not None
            else ends[partition]
            for partition in partitions
        }

    async def _knows_times(
        self, partitions: Sequence[TopicPartition], ends: dict[TopicPartition, int]
    ) -> bool:
        """Return whether the broker finds records by time: some brokers answer that there is none,
        whatever the time is.
        """
        begins = await self._kafka.beginning_offsets(partitions)
        filled = [partition for partition in partitions if begins[partition] < ends[partition]]
        if not filled:
            return True
        found = await self._kafka.offsets_for_times(dict.fromkeys(filled, 0))
        return any(offset is not None for offset in found.values())
