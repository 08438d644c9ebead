"""Define what both encodings share: parts of a record, instruments as they travel, schema names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.batch import TickBatch
from ingestor.model.instruments import Instrument
from ingestor.model.row_classes import RowClass, is_control
from ingestor.model.rows import Flag, Rows

# key, value, timestamp in ms since the epoch, rows in it. A bare tuple: hundreds of thousands of
# them are made a second.
Record = tuple[bytes | None, bytes, int, int]

Headers = list[tuple[str, bytes]]

Part = tuple[Rows, int]  # consecutive rows of one partition, the sequence number of the first

LEVELS_PER_RECORD: Final = 4_096  # a snapshot of 46,000 levels is cut; LAST is on its last record
ENCODINGS: Final = ("json", "binary")
VERSION: Final = 1
_LAST: Final = int(Flag.LAST)
RECORD_BYTES_MAX: Final = 256 << 10  # a value is cut into several records above this


def schema_name(topic: str, encoding: str = "json") -> str:
    """Return what the header `schema` of a topic's records holds: "md.trades.v1+json/1".

    topic: without its prefix.
    """
    return f"md.{topic}+{encoding}/{VERSION}"


def headers(row_class: RowClass, encoding: str) -> Headers:
    """Return the headers of every record of one class and encoding."""
    return [("schema", schema_name(row_class.schema, encoding).encode())]


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, at least one. numpy copies a structured array field by field,
    which takes ten times as long as its bytes do.
    """
    if len(parts) == 1:
        return parts[0]
    return np.frombuffer(b"".join([part.tobytes() for part in parts]), parts[0].dtype)


def keyed(row_class: RowClass, keys: Sequence[bytes], rows: Rows) -> list[bytes]:
    """Return the keys of records of one row each.

    Args:
        row_class: its `key_fields` stand behind the instrument, each after a colon. Where its topic
            is compacted, GAP and RESET have a key of their own, so that they replace no row.
        keys: of the rows' instruments.
        rows: as many as keys.
    """
    columns = [rows[name].tolist() for name in row_class.key_fields]
    names = [
        b"".join([b":%d" % value for value in values]) for values in zip(*columns, strict=True)
    ]
    found = list(map(bytes.__add__, keys, names)) if columns else list(keys)
    if row_class.is_compacted:
        for index in np.flatnonzero(is_control(rows)).tolist():
            found[index] = keys[index] + b":control"
    return found


def event_starts(rows: Rows, bounds: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where the records of levels begin: with every event, and at `bounds`, which are above
    0. rows: at least one, of a class with levels.
    """
    before, after = rows[:-1], rows[1:]
    starts = (before["flags"] & _LAST != 0) | is_control(after)
    for field in ("kind", "instrument", "ts_event", "ts_recv", "sequence"):
        starts |= before[field] != after[field]
    starts |= (before["flags"] ^ after["flags"]) & ~np.uint16(_LAST) != 0
    starts |= after["side"] < before["side"]
    starts[bounds - 1] = True
    at = np.concatenate(([0], np.flatnonzero(starts) + 1))
    if np.diff(at, append=len(rows)).max() <= LEVELS_PER_RECORD:
        return at
    return np.unique(np.concatenate((at, *(_cuts(at, len(rows))))))


def _cuts(starts: NDArray[np.intp], end: int) -> Iterable[NDArray[np.intp]]:
    for start, stop in zip(starts, np.append(starts[1:], end), strict=True):
        yield np.arange(start, stop, LEVELS_PER_RECORD)


class Pieces:
    """A text for each instrument, each made once.

    An array of objects is three times as fast to look up as a dict.
    """

    def __init__(self, make: Callable[[int], bytes], instruments: Sized) -> None:
        """Create the texts.

        Args:
            make: returns the text of an instrument's number, never an empty one.
            instruments: by number, may grow.
        """
        self._make = make
        self._instruments = instruments
        self._texts: NDArray[np.object_] = np.empty(0, object)
        self._lengths = np.empty(0, np.int64)  # 0 = not made yet

    def take(self, numbers: NDArray[np.intp]) -> tuple[list[bytes], NDArray[np.int64]]:
        """Return the texts of instruments, and their lengths."""
        missing = len(self._instruments) - len(self._lengths)
        if missing > 0:
            self._texts = np.concatenate((self._texts, np.empty(missing, object)))
            self._lengths = np.concatenate((self._lengths, np.zeros(missing, np.int64)))
        lengths = self._lengths.take(numbers)
        if not lengths.all():
            for number in {*numbers[lengths == 0].tolist()}:
                text = self._texts[number] = self._make(number)
                self._lengths[number] = len(text)
            lengths = self._lengths.take(numbers)
        texts: list[bytes] = self._texts.take(numbers).tolist()
        return texts, lengths


@dataclass(frozen=True, slots=True)
class WireInstrument:
    """Hold a record's part of an instrument; the topic `instruments` has the rest."""

    key: str
    price_exponent: int
    size_exponent: int
    revision: int = 1

    @property
    def venue(self) -> str:
        return self.key.partition(":")[0]

    @property
    def symbol(self) -> str:
        """The venue's own symbol."""
        return self.key.split(":", 2)[-1]

    @classmethod
    def of(cls, one: Instrument) -> WireInstrument:
        return cls(one.key, one.price_exponent, one.size_exponent, one.revision)


@dataclass(slots=True)
class Decoded:
    """One record read: where it stands in its partition, and its rows.

    session: 16 bytes, the publisher's. first_sequence: the sequence number of the first row; they
    count rows, per session and (topic, partition), without holes.
    """

    session: bytes
    first_sequence: int
    batch: TickBatch

    @property
    def next_sequence(self) -> int:
        return self.first_sequence + len(self.batch.rows)


class CodecError(ValueError):
    """Bytes that are no record of ours, or of a version that this program doesn't know."""
