"""Splits rows by the partition of their instrument's key."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ingestor.kafka.aiokafka_compat import murmur2
from ingestor.model.batch import Instruments
from ingestor.model.rows import Rows


def partition_of_key(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's Java client gives to a key."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


class Partitions:
    """Splits rows by the partition of their instrument's key, for one number of partitions."""

    def __init__(self, instruments: Instruments, count: int) -> None:
        """instruments: by number, may grow."""
        self.count = count
        self._instruments = instruments
        # (Of 16 bits, since numpy sorts those by counting.)
        self._partition_of: NDArray[np.uint16] = np.empty(0, np.uint16)

    def split(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Yield (partition, its rows in order), for partitions that have rows."""
        known = self._partition_of
        if len(known) < len(self._instruments):
            known = self._learn()
        if self.count == 1:
            yield 0, rows
            return
        partitions = known.take(rows["instrument"])
        counts = np.bincount(partitions).tolist()
        if counts[-1] == len(rows):
            yield len(counts) - 1, rows
            return
        # An index would copy field by field, ten times as slow.
        rows = rows.take(partitions.argsort(kind="stable"))
        end = 0
        for partition, count in enumerate(counts):
            if count:
                start, end = end, end + count
                yield partition, rows[start:end]

    def of(self, instrument: int) -> int:
        """Return the partition of one instrument."""
        known = self._partition_of
        return int((known if instrument < len(known) else self._learn())[instrument])

    def _learn(self) -> NDArray[np.uint16]:
        more = range(len(self._partition_of), len(self._instruments))
        keys = (self._instruments[number].key.encode() for number in more)
        found = [partition_of_key(key, self.count) for key in keys]
        self._partition_of = np.concatenate((self._partition_of, np.array(found, np.uint16)))
        return self._partition_of
