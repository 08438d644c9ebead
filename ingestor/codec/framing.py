"""Records as a Kafka record batch holds them (KIP-98, "Record"), all of a flush at a time.

| field | |
|---|---|
| length | varint: bytes that follow |
| attributes | 0 |
| timestamp delta | varint: ms since the batch's first record |
| offset delta | varint: place in the batch |
| key | varint length and bytes; length -1 = none |
| value | varint length and bytes |
| headers | varint count; of each the name and the value, as the key |

Varints are zigzag encoded. A small flush makes one batch for each partition, so what numpy costs
for each call, and Python for each record, is paid for all of them together: records stay columns
of pieces of bytes, which one `join` for each batch writes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import lru_cache
from itertools import accumulate, pairwise, repeat
from typing import Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from ingestor.codec.wire import Headers, Record

Column = list[bytes] | bytes  # a piece of each value, or the same of all

_KNOWN: Final = 8_192  # varints of 0 to this are kept; two bytes hold it
_MORE: Final = 0x80  # in each octet of a varint but the last
_NO_KEY: Final = b"\x01"  # the varint of -1


def varint(number: int) -> bytes:
    """Return a zigzag varint. number: 64 bits, signed."""
    rest = number << 1 if number >= 0 else ~(number << 1)
    octets = bytearray()
    while rest >= _MORE:
        octets.append(rest & 0x7F | _MORE)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)


def with_length(text: bytes) -> bytes:
    """Return what stands for a key or a value."""
    return varint(len(text)) + text


@lru_cache(maxsize=64)
def headers_text(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    """Return what stands for a record's headers."""
    texts = (with_length(name.encode()) + with_length(value) for name, value in headers)
    return varint(len(headers)) + b"".join(texts)


_TEXTS: Final = np.array([varint(number) for number in range(_KNOWN)], object)
_TEXT_LENGTHS: Final = np.array([len(text) for text in _TEXTS], np.int64)


def _varints(numbers: NDArray[np.int64]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the varints of some numbers, and their lengths."""
    if numbers.view(np.uint64).max() < _KNOWN:
        return _TEXTS.take(numbers).tolist(), _TEXT_LENGTHS.take(numbers)
    texts = [varint(number) for number in numbers.tolist()]
    return texts, np.array([len(text) for text in texts], np.int64)


class Pieces:
    """A text for each instrument, each made once. (An array of objects is three times as fast to
    look up as a dict.)"""

    def __init__(self, make: Callable[[int], bytes], instruments: Sized) -> None:
        """make: returns the text of an instrument's number, never an empty one. instruments: by
        number, may grow."""
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


def _without_length(text: bytes) -> bytes:
    """Undo `with_length`."""
    return text[next(at for at, octet in enumerate(text, 1) if octet < _MORE) :]


class Framed(NamedTuple):
    """The first records of a part: their bytes, how many, the first and the latest time."""

    body: bytes
    records: int
    first_ms: int
    latest_ms: int


def frame(records: Iterable[Record], headers: Headers, bytes_max: int) -> Framed:
    """Return the first records, as many as fit, at least one. records: at least one."""
    tail = headers_text(tuple(headers))
    if isinstance(records, ColumnsPart):
        return records.framed(tail, bytes_max)
    texts: list[bytes] = []
    count = size = first_ms = latest_ms = 0
    for key, value, ts_ms, _ in records:
        if not count:
            first_ms = latest_ms = ts_ms
        parts = (
            b"\0",
            varint(ts_ms - first_ms),
            varint(count),
            _NO_KEY if key is None else with_length(key),
            varint(len(value)),
            value,
            tail,
        )
        length = sum(map(len, parts))
        length_text = varint(length)
        size += length + len(length_text)
        if size > bytes_max and count:
            break
        texts += (length_text, *parts)
        latest_ms = max(latest_ms, ts_ms)
        count += 1
    return Framed(b"".join(texts), count, first_ms, latest_ms)


class Columns:
    """Keyed records of several parts, in order, as columns.

    keys: of each record with its length (see `with_length`). ts_ms: int64[records]. pieces: what
    the values are joined from. lengths: int64[records] of the values. rows: int64[records], how
    many each has; None = one. bounds: where the parts begin, and the end.
    """

    def __init__(
        self,
        keys: tuple[list[bytes], NDArray[np.int64]],
        ts_ms: NDArray[np.int64],
        pieces: Sequence[Column],
        lengths: NDArray[np.int64],
        rows: NDArray[np.int64] | None,
        bounds: NDArray[np.int64],
    ) -> None:
        self.rows = rows
        self.bounds = bounds
        self.ts_ms = ts_ms
        self._keys, self._key_lengths = keys
        self._pieces = pieces
        self._lengths = lengths
        self._other: dict[int, bytes] = {}  # values that are not made of the pieces
        self._tail: bytes | None = None  # what the rest was made for
        self._texts: list[bytes] = []
        self._width = 0  # of them for each record
        self._sizes: list[int] = []  # bytes up to each record

    def replace(self, index: int, value: bytes) -> None:
        """Set one value as a whole."""
        self._lengths[index] = len(value)
        self._other[index] = value

    def parts(self) -> list[ColumnsPart]:
        return [ColumnsPart(self, *span) for span in pairwise(self.bounds.tolist())]

    def records(self, start: int, end: int) -> list[Record]:
        """Return the records [start, end) as such."""
        pieces = [
            [one] * (end - start) if isinstance(one, bytes) else one[start:end]
            for one in self._pieces
        ]
        values = list(map(b"".join, zip(*pieces, strict=True)))
        for index, value in self._other.items():
            if start <= index < end:
                values[index - start] = value
        keys = map(_without_length, self._keys[start:end])
        rows = repeat(1) if self.rows is None else self.rows[start:end].tolist()
        return list(zip(keys, values, self.ts_ms[start:end].tolist(), rows, strict=False))

    def framed(self, start: int, end: int, tail: bytes, bytes_max: int) -> Framed:
        """Return the first of the records [start, end), a part."""
        if tail != self._tail:
            self._frame(tail)
        sizes, before = self._sizes, self._sizes[start]
        if sizes[end] - before > bytes_max:
            fits = np.searchsorted(sizes[start + 1 : end + 1], before + bytes_max, side="right")
            end = start + max(int(fits), 1)
        body = b"".join(self._texts[start * self._width : end * self._width])
        ts_ms = self.ts_ms[start:end]
        return Framed(body, end - start, int(ts_ms[0]), int(ts_ms.max()))

    def _frame(self, tail: bytes) -> None:
        lengths, bounds = self._lengths, self.bounds
        starts, counts = bounds[:-1], np.diff(bounds)
        deltas, delta_lengths = _varints(self.ts_ms - self.ts_ms[starts].repeat(counts))
        offsets, offset_lengths = _varints(np.arange(len(lengths)) - starts.repeat(counts))
        value_lengths, sizes = _varints(lengths)
        sizes = sizes + lengths + delta_lengths + offset_lengths + self._key_lengths
        sizes += 1 + len(tail)
        record_lengths, length_lengths = _varints(sizes)
        sizes += length_lengths
        columns: list[Column] = [record_lengths, b"\0", deltas, offsets, self._keys, value_lengths]
        columns += self._pieces
        width = len(columns) + 1
        texts = [tail] * (width * len(lengths))
        for index, column in enumerate(columns):
            texts[index::width] = [column] * len(lengths) if isinstance(column, bytes) else column
        for index, value in self._other.items():
            first = index * width + width - 1 - len(self._pieces)
            texts[first : first + len(self._pieces)] = [value] + [b""] * (len(self._pieces) - 1)
        self._tail, self._texts, self._width = tail, texts, width
        self._sizes = [0, *accumulate(sizes.tolist())]


class ColumnsPart(Sequence[Record]):
    """The records of one part. Reading them as a sequence makes them, one by one."""

    def __init__(self, columns: Columns, start: int, end: int) -> None:
        self._columns = columns
        self._start = start
        self._end = end

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            places = range(self._start, self._end)[index]
            assert places.step == 1
            return self._columns.records(places.start, places.stop)
        place = range(self._start, self._end)[index]
        return self._columns.records(place, place + 1)[0]

    def __iter__(self) -> Iterator[Record]:
        return iter(self[:])

    def framed(self, tail: bytes, bytes_max: int) -> Framed:
        return self._columns.framed(self._start, self._end, tail, bytes_max)
