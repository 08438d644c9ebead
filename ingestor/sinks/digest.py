"""One number for all rows of a run, whatever their batches, whatever the number of workers.

Each (instrument, class) has a running SHA-256 over the bytes of its rows in order, the instrument
number replaced by its key; the digest is the sum of those hashes modulo 2^256. Sums don't depend
on order, so the digests of workers that share the instruments add up to the digest of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, Protocol

import numpy as np

from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Flag, Kind, Rows

_MODULUS: Final = 1 << 256


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _Stream:
    """The hash of one instrument and class, and the last mark where that was the last row."""

    __slots__ = ("gap_cause", "hash", "rows")

    def __init__(self, key: str, row_class: RowClass) -> None:
        self.hash: _Hash = hashlib.sha256(f"{key}\n{row_class.name}\n".encode())
        self.rows = 0
        self.gap_cause = 0  # cause of the GAP that was the last row; 0 = it was no GAP


class Digest:
    """Feed it every batch in order; read `hexdigest` at any time."""

    def __init__(self, *, receive_times: bool = True) -> None:
        """receive_times: False leaves `ts_recv` out (and `ts_event` where it is a copy of it)."""
        self._receive_times = receive_times
        self._streams: dict[tuple[str, RowClass], _Stream] = {}

    def add(self, batch: TickBatch) -> None:
        """Take a batch.

        A GAP straight after a GAP of the same cause says nothing new: whether the two were one
        depends on where a flush fell, so only the first is counted.
        """
        rows = batch.rows
        if not len(rows):
            return
        numbers = rows["instrument"]
        order = np.argsort(numbers, kind="stable")
        numbers = numbers[order]
        rows = rows[order]
        rows["instrument"] = 0
        if not self._receive_times:
            copied = (rows["flags"] & Flag.NO_VENUE_TIME) != 0
            rows["ts_event"][copied] = 0
            rows["ts_recv"] = 0
        starts = np.concatenate(([0], np.flatnonzero(np.diff(numbers)) + 1, [len(rows)])).tolist()
        has_gaps = bool((rows["kind"] == Kind.GAP).any())
        view = rows.view(np.uint8).data
        width = rows.itemsize
        for first, last in pairwise(starts):
            key = batch.instruments[int(numbers[first])].key
            stream = self._streams.get((key, batch.row_class))
            if stream is None:
                stream = _Stream(key, batch.row_class)
                self._streams[key, batch.row_class] = stream
            if has_gaps or stream.gap_cause:
                _add_with_gaps(stream, batch.row_class, rows[first:last])
            else:
                stream.rows += last - first
                stream.hash.update(view[first * width : last * width])

    def by_stream(self) -> dict[str, str]:
        """Return hash by "key class", to find what differs between two runs."""
        streams = sorted(self._streams.items(), key=lambda item: (item[0][0], item[0][1].id))
        return {
            f"{key} {row_class.name.lower()}": stream.hash.digest().hex()
            for (key, row_class), stream in streams
        }

    def hexdigest(self) -> str:
        return combined(stream.hash.digest().hex() for stream in self._streams.values())


def combined(digests: Iterable[str]) -> str:
    """Return the digest of all from the digests of disjoint parts (workers, or streams)."""
    return f"{sum(int(digest, 16) for digest in digests) % _MODULUS:064x}"


def _add_with_gaps(stream: _Stream, row_class: RowClass, rows: Rows) -> None:
    control = rows.view(row_class.control)
    causes = np.where(control["kind"] == Kind.GAP, control["cause"], 0)
    before = np.concatenate(([stream.gap_cause], causes[:-1]))
    kept = rows[(causes == 0) | (causes != before)]
    stream.gap_cause = int(causes[-1])
    stream.rows += len(kept)
    if len(kept):
        stream.hash.update(kept.view(np.uint8).data)


class AuditSink:
    """A sink that keeps no rows: their number by kind, and the digest."""

    def __init__(self, *, receive_times: bool = True) -> None:
        self.digest = Digest(receive_times=receive_times)
        self._kinds = np.zeros(256, np.int64)  # rows by the field `kind`

    @property
    def rows(self) -> dict[str, int]:
        names = {row_class.id: row_class.name for row_class in ROW_CLASSES}
        names |= {int(kind): kind.name for kind in (Kind.GAP, Kind.RESET)}
        return {name.lower(): int(self._kinds[kind]) for kind, name in sorted(names.items())}

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        self._kinds += np.bincount(batch.rows["kind"], minlength=256)
        self.digest.add(batch)

    async def drain(self, timeout_s: float) -> int:
        return 0
