"""Read the records of whole Kafka batches into rows: with the library where it knows the records.

A record of ours is known by its key and by how its value begins: everything up to the number of its
first row is the same for all records of an instrument, class and session. The first one is read in
Python, and so is every record that is not exactly of our template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.codec.encoder import decode
from ingestor.codec.json_encoder import value_prefix
from ingestor.codec.record import CodecError, Decoded, WireInstrument
from ingestor.codec.record_shapes import READ, record_shape
from ingestor.model.batch import TickBatch
from ingestor.native import KnownPrefix, ReadResult, RecordReader, native

_PREFIXES_MAX: Final = 200_000
_REBUILT_AT: Final = 8  # prefixes for each record read in Python, before the table is made anew
_OFFSETS: Final = 2**62


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """The records of a Kafka batch, decompressed.

    records: as Kafka's format has them. count: how many. base_offset: of the first one.
    """

    records: bytes
    count: int
    base_offset: int


@dataclass(frozen=True, slots=True)
class RecordRun:
    """Records that follow each other in one session.

    decoded: their rows together. ends: int64[records], how many of the rows are in the records up
    to each. next_offsets: int64[records], the offset behind each.
    """

    decoded: Decoded
    ends: NDArray[np.int64]
    next_offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A record that is none of ours."""

    offset: int
    failure: CodecError


class RecordBatchReader:
    """Reads batches. The instruments of all that it read are in one table, which grows."""

    def __init__(self) -> None:
        library = native().library
        shapes = [record_shape(row_class) for row_class in READ]
        self._reader = RecordReader(library, shapes) if library is not None else None
        self._learned = 0
        self._read_in_python = 0
        self._forget()

    @property
    def is_compiled(self) -> bool:
        """Return True if the library reads; else nothing could read a batch."""
        return self._reader is not None

    def read(
        self, batch: RecordBatch, first_offset: int = 0, end_offset: int = _OFFSETS
    ) -> list[RecordRun | RefusedRecord]:
        """Return what records of a batch hold, in order.

        Args:
            batch: the records.
            first_offset: of the first one that is wanted.
            end_offset: behind the last one that is wanted.

        Raises:
            CodecError: what is there are no records.
        """
        reader, base, records = self._reader, batch.base_offset, batch.records
        assert reader is not None, "no library"
        found: list[RecordRun | RefusedRecord] = []
        reader.begin(batch.count, first_offset - base, end_offset - 1 - base)
        result = ReadResult.CUT
        while result is not ReadResult.ALL:
            run, result = reader.run(records)
            if run is not None:
                rows = TickBatch(run.row_class, run.rows, self._instruments)
                decoded = Decoded(self._sessions[run.session], run.first_sequence, rows)
                found.append(RecordRun(decoded, run.ends, run.deltas + (base + 1)))
            if result is ReadResult.BROKEN:
                raise CodecError(f"the batch at offset {base} has records that are none")
            if result is ReadResult.OTHER:
                value, delta = reader.other(records)
                found.append(self._read_other(value, base + delta))
                self._learn()
        return found

    def _read_other(self, value: bytes, offset: int) -> RecordRun | RefusedRecord:
        try:
            decoded = decode(value)
        except CodecError as failure:
            return RefusedRecord(offset, failure)
        self._read_in_python += 1
        self._note(value, decoded)
        ends = np.array([len(decoded.batch)], np.int64)
        return RecordRun(decoded, ends, np.array([offset + 1], np.int64))

    def _note(self, value: bytes, decoded: Decoded) -> None:
        """Note how a record of ours begins, for those that follow it."""
        batch = decoded.batch
        if not value.startswith(b"{") or batch.row_class not in READ:
            return
        if batch.rows["kind"][0] != batch.row_class.id:
            return
        one = batch.instruments[0]
        text = value_prefix(one.key, one.revision, batch.row_class, decoded.session.hex())
        identity = (one.key, one.price_exponent, one.size_exponent, one.revision)
        if not value.startswith(text) or (text, identity) in self._known:
            return
        if len(self._known) >= _PREFIXES_MAX:
            self._forget()
        number = self._numbers.setdefault(identity, len(self._instruments))
        if number == len(self._instruments):
            self._instruments.append(WireInstrument(*identity))
        if decoded.session not in self._sessions:
            self._sessions.append(decoded.session)
        session = self._sessions.index(decoded.session)
        exponents = one.price_exponent, one.size_exponent
        self._known[text, identity] = KnownPrefix(
            one.key.encode(), text, batch.row_class, number, session, exponents
        )

    def _learn(self) -> None:
        """Let the library know the prefixes that were noted; seldom where they are many."""
        is_due = self._read_in_python * _REBUILT_AT >= len(self._known)
        if self._reader is not None and is_due and len(self._known) > self._learned:
            self._reader.know(self._known.values())
            self._learned, self._read_in_python = len(self._known), 0

    def _forget(self) -> None:
        """Begin anew. Rows that were handed out keep the table that they came with."""
        self._instruments: list[WireInstrument] = []
        self._numbers: dict[tuple[str, int, int, int], int] = {}
        self._sessions: list[bytes] = []
        self._known: dict[tuple[bytes, tuple[str, int, int, int]], KnownPrefix] = {}
        self._learned = self._read_in_python = 0
        if self._reader is not None:
            self._reader.know(())
