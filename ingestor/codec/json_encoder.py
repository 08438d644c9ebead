"""The JSON encoding: one record per venue event, keyed `venue:market:symbol`.

schemas/*.schema.json describe the values. Trades and quotes are one row each; a book event is its
levels up to the row flagged LAST, as `bids` and `asks`; a mark (gap, reset) is a record of its
own. Prices and sizes are decimal strings with exactly as many decimals as the instrument has, so
that a reader learns the exponents from the text.

Every value is made by one `%` of a template in which whatever is constant for an instrument, kind,
side and flags is already written. The few rows that a template can't write (marks, negative
numbers) are written anew one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise, repeat
from operator import mod
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from ingestor.codec.digits import decimal_texts, integer_texts
from ingestor.codec.record import Part, Pieces, Record, joined
from ingestor.model.batch import Instruments
from ingestor.model.decimals import format_decimal
from ingestor.model.rows import (
    CHANNEL_OF,
    CONTROL_FIELDS,
    NUMBERS,
    TRADE,
    Cause,
    Flag,
    Kind,
    RowClass,
    Rows,
    Side,
)

LEVELS_PER_RECORD: Final = 4_096  # a snapshot of 46,000 levels is cut; LAST is on its last record

SIDE_NAMES: Final = {Side.NONE: "none", Side.BID: "buy", Side.ASK: "sell"}  # of trades
KIND_NAMES: Final = {
    Kind.TRADE: "trade",
    Kind.QUOTE: "quote",
    Kind.LEVEL: "book",
    Kind.GAP: "gap",
    Kind.RESET: "reset",
}
NO_CAUSE: Final = "none"
CAUSE_NAMES: Final = {0: NO_CAUSE, **{int(cause): cause.name.lower() for cause in Cause}}

_TOGETHER_MAX: Final = 1_024  # rows; the columns of more would leave the processor's cache
_LAST: Final = int(Flag.LAST)
_MS: Final = 1_000_000
_FIRST_MARK: Final = int(Kind.GAP)  # kinds from here on are marks, not ticks
_FIRST_MARK_CODE: Final = np.uint64(_FIRST_MARK << 56)
_CODE_WORD: Final = TRADE.fields["instrument"][1] // 8  # type: ignore[index]  # it has fields
_TIMES: Final = b'"ts_event":%b,"ts_recv":%b,"sequence":%b,"flags":'
_PAIR: Final = b'["%b","%b"]'

_Columns = list[list[bytes]]


class JsonEncoder:
    """Rows -> records. Keeps the templates of each instrument seen."""

    encoding: Final = "json"

    def __init__(self, instruments: Instruments, session: bytes) -> None:
        """instruments: by number, may grow. session: 16 bytes."""
        assert len(session) == 16
        self._instruments = instruments
        self._session = session.hex()
        self._keys = Pieces(lambda number: instruments[number].key.encode(), instruments)
        self._templates = {
            RowClass.TRADE: _Cache(self._trade_template),
            RowClass.QUOTE: _Cache(self._quote_template),
            RowClass.LEVEL: _Cache(self._book_template),
        }
        self._exponents = np.zeros((0, 2), np.int64)  # of price and size, by instrument

    def encode(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return the records of `rows`, in order."""
        return self.encode_parts(row_class, [(rows, first_sequence)])[0]

    def encode_parts(self, row_class: RowClass, parts: Sequence[Part]) -> list[list[Record]]:
        """Return the records of each part, in order."""
        if len(parts) > 1 and sum(len(rows) for rows, _ in parts) > _TOGETHER_MAX:
            return [self.encode(row_class, *part) for part in parts]
        rows = joined([rows for rows, _ in parts])
        bounds = np.array([0, *accumulate(len(rows) for rows, _ in parts)])
        # What a row's index is to be raised by to be its sequence number, by part.
        offsets = np.array([first for _, first in parts]) - bounds[:-1]
        encode = self._book if row_class is RowClass.LEVEL else self._ticks
        records, cuts = encode(row_class, rows, bounds, offsets)
        return [records[start:end] for start, end in pairwise(cuts)]

    def _ticks(
        self,
        row_class: RowClass,
        rows: Rows,
        bounds: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> tuple[list[Record], list[int]]:
        """A record holds one row. Returns the records, and where each part's begin and end."""
        codes = _codes(rows)
        numbers = _numbers(rows, NUMBERS[row_class])
        times = _times(rows)
        sequences = np.arange(len(rows)) + np.repeat(offsets, np.diff(bounds))
        columns = [integer_texts(sequences), *times, *self._decimals(rows, numbers)]
        if row_class is RowClass.TRADE:
            columns.append(_trade_ids(rows, times[-1]))
        values = _fill(self._templates[row_class], codes, columns)
        for index in _odd(codes, numbers):
            values[index] = self._one(row_class, rows[index], int(sequences[index]))
        keys, _ = self._keys.take(rows["instrument"].astype(np.intp))
        ts_ms = (rows["ts_recv"] // _MS).tolist()
        return list(zip(keys, values, ts_ms, repeat(1), strict=False)), bounds.tolist()

    def _book(
        self,
        row_class: RowClass,
        rows: Rows,
        bounds: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> tuple[list[Record], list[int]]:
        """A record holds consecutive rows that differ in side, price, size and LAST alone."""
        numbers = _numbers(rows, NUMBERS[row_class])
        prices, sizes = self._decimals(rows, numbers)
        levels = list(map(mod, repeat(_PAIR), zip(prices, sizes, strict=True)))
        for index in _odd(_codes(rows), numbers):
            levels[index] = self._level(rows[index])
        starts = event_starts(rows, bounds[1:-1])
        ends = np.append(starts[1:], len(rows))
        cuts = np.searchsorted(starts, bounds)
        sequences = starts + np.repeat(offsets, np.diff(cuts))
        asks_before = np.concatenate(([0], np.cumsum(rows["side"] == Side.ASK)))
        splits = (ends - asks_before[ends] + asks_before[starts]).tolist()  # where asks begin
        spans = list(zip(starts.tolist(), splits, ends.tolist(), strict=True))
        heads = rows.take(ends - 1)
        codes = _codes(heads)
        lengths = ends - starts
        columns: _Columns = [
            integer_texts(sequences),
            integer_texts(lengths),
            *_times(heads),
            [b",".join(levels[start:split]) for start, split, _ in spans],
            [b",".join(levels[split:end]) for _, split, end in spans],
        ]
        values = _fill(self._templates[row_class], codes, columns)
        for index in np.flatnonzero(codes >= _FIRST_MARK_CODE).tolist():
            values[index] = self._mark(row_class, heads[index], int(sequences[index]))
        keys, _ = self._keys.take(heads["instrument"].astype(np.intp))
        ts_ms = (heads["ts_recv"] // _MS).tolist()
        return list(zip(keys, values, ts_ms, lengths.tolist(), strict=True)), cuts.tolist()

    def _decimals(self, rows: Rows, numbers: NDArray[np.int64]) -> _Columns:
        """Return a column of texts for each column of `numbers`, which take turns as price and
        size. Negative ones come out as 0."""
        if self._exponents.shape[0] < len(self._instruments):
            known = [self._instruments[number] for number in range(len(self._instruments))]
            pairs = [(one.price_exponent, one.size_exponent) for one in known]
            self._exponents = np.array(pairs, np.int64)
        exponents = self._exponents[rows["instrument"]]
        width = numbers.shape[1]
        if width > 2:
            exponents = np.tile(exponents, (1, width // 2))
        values = np.maximum(numbers, 0).ravel().view(np.uint64)
        texts = decimal_texts(values, exponents.ravel())
        return [texts[index::width] for index in range(width)]

    def _prefix(self, code: int, row_class: RowClass) -> bytes:
        one = self._instruments[_instrument(code)]
        venue, market, symbol = (orjson.dumps(part).decode() for part in one.key.split(":", 2))
        return (
            f'{{"venue":{venue},"market":{market},"symbol":{symbol},"revision":{one.revision},'
            f'"channel":"{CHANNEL_OF[row_class]}","kind":"{KIND_NAMES[_kind(code)]}",'
            f'"session":"{self._session}","seq":'
        ).encode()

    def prefix(self, number: int, row_class: RowClass) -> bytes:
        """Return how every value of an instrument's rows begins, up to its sequence number."""
        return self._prefix(number | row_class << 56, row_class)

    def _trade_template(self, code: int) -> bytes:
        if _kind(code) is not Kind.TRADE:
            return b"%.0a" * 7  # swallows the arguments: this row is written as a mark
        return b"".join(
            (
                self._prefix(code, RowClass.TRADE).replace(b"%", b"%%"),
                b'%b,"rows":1,' + _TIMES + b"%d," % _flags(code),
                b'"side":"%b",' % SIDE_NAMES[_side(code)].encode(),
                b'"price":"%b","size":"%b","trade_id":"%b"}',
            )
        )

    def _quote_template(self, code: int) -> bytes:
        if _kind(code) is not Kind.QUOTE:
            return b"%.0a" * 8
        return b"".join(
            (
                self._prefix(code, RowClass.QUOTE).replace(b"%", b"%%"),
                b'%b,"rows":1,' + _TIMES + b"%d," % _flags(code),
                b'"bid_price":"%b","bid_size":"%b","ask_price":"%b","ask_size":"%b"}',
            )
        )

    def _book_template(self, code: int) -> bytes:
        prefix = self._prefix(code, RowClass.LEVEL).replace(b"%", b"%%")
        flags = b"%d," % _flags(code)
        return prefix + b'%b,"rows":%b,' + _TIMES + flags + b'"bids":[%b],"asks":[%b]}'

    def _level(self, row: np.void) -> bytes:
        price, size = self._texts(row, NUMBERS[RowClass.LEVEL])
        return f'["{price}","{size}"]'.encode()

    def _texts(self, row: np.void, fields: Sequence[str]) -> list[str]:
        one = self._instruments[int(row["instrument"])]
        exponents = (one.price_exponent, one.size_exponent)
        return [
            format_decimal(int(row[field]), exponents[index % 2])
            for index, field in enumerate(fields)
        ]

    def _one(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        """Write one row the long way: a mark, or a tick with a negative number."""
        if row["kind"] >= _FIRST_MARK:
            return self._mark(row_class, row, sequence)
        names = NUMBERS[row_class]
        fields = dict(zip(names, self._texts(row, names), strict=True))
        if row_class is RowClass.TRADE:
            high, low = int(row["trade_id_high"]), int(row["trade_id_low"])
            fields["trade_id"] = _id_text(high, low).decode()
            fields = {"side": SIDE_NAMES[Side(int(row["side"]))], **fields}
        return self._start(row_class, row, sequence) + orjson.dumps(fields)[1:]

    def _mark(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        one = self._instruments[int(row["instrument"])]
        first, last = (int(row[field]) for field in CONTROL_FIELDS[row_class])
        fields = {
            "cause": CAUSE_NAMES[int(row["side"])],
            "first": first,
            "last": last,
            "decimals": [one.price_exponent, one.size_exponent],
        }
        return self._start(row_class, row, sequence) + orjson.dumps(fields)[1:]

    def _start(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        code = int(_codes(row.reshape(1))[0])
        times = tuple(b"%d" % row[field] for field in ("ts_event", "ts_recv", "sequence"))
        prefix = self._prefix(code, row_class)
        return prefix + b'%d,"rows":1,' % sequence + _TIMES % times + b"%d," % _flags(code)


class _Cache(dict[int, bytes]):
    """What `make` returns for a number, made once."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, number: int) -> bytes:
        made = self[number] = self._make(number)
        return made


def event_starts(rows: Rows, bounds: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where the records of LEVEL rows begin: with every event, and at `bounds`, which are
    above 0. rows: at least one."""
    before, after = rows[:-1], rows[1:]
    starts = (before["flags"] & _LAST != 0) | (after["kind"] >= _FIRST_MARK)
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


def _fill(templates: _Cache, codes: NDArray[np.uint64], columns: _Columns) -> list[bytes]:
    return list(map(mod, map(templates.__getitem__, codes.tolist()), zip(*columns, strict=True)))


def _numbers(rows: Rows, fields: Sequence[str]) -> NDArray[np.int64]:
    """Return int64[rows, fields]."""
    numbers = np.empty((len(rows), len(fields)), np.int64)
    for index, field in enumerate(fields):
        numbers[:, index] = rows[field]
    return numbers


def _times(rows: Rows) -> _Columns:
    """Return the texts of ts_event, ts_recv and sequence."""
    fields = ("ts_event", "ts_recv", "sequence")
    return [integer_texts(np.ascontiguousarray(rows[field])) for field in fields]


def _trade_ids(rows: Rows, sequences: list[bytes]) -> list[bytes]:
    low, high = rows["trade_id_low"], rows["trade_id_high"]
    if high.any():
        return list(map(_id_text, high.tolist(), low.tolist()))
    if (low == rows["sequence"]).all():  # most venues count trades by their ids
        return sequences
    return integer_texts(np.ascontiguousarray(low))


def _odd(codes: NDArray[np.uint64], numbers: NDArray[np.int64]) -> list[int]:
    """Return the rows that a template can't write: marks, and ticks with a negative number."""
    if codes.max() < _FIRST_MARK_CODE and numbers.min() >= 0:
        return []
    odd: list[int] = np.flatnonzero(
        (codes >= _FIRST_MARK_CODE) | (numbers < 0).any(axis=1)
    ).tolist()
    return odd


def _codes(rows: Rows) -> NDArray[np.uint64]:
    """Return what decides a row's template, as it stands in the row: uint64[n] of instrument (32
    bits), flags (16), side (8) and kind (8)."""
    words = np.ascontiguousarray(rows).view(np.uint64)
    return words[_CODE_WORD :: rows.dtype.itemsize // 8]


def _instrument(code: int) -> int:
    return code & 0xFFFFFFFF


def _flags(code: int) -> int:
    return code >> 32 & 0xFFFF


def _side(code: int) -> Side:
    return Side(code >> 48 & 0xFF)


def _kind(code: int) -> Kind:
    return Kind(code >> 56)


def _id_text(high: int, low: int) -> bytes:
    """Return a trade id: decimal digits, or a UUID where it is wider than 64 bits."""
    if high == 0:
        return b"%d" % low
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()
