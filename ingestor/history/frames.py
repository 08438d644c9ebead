"""Make Arrow tables of rows: exact decimals, UTC times, and names where rows have numbers.

Every class of `ROW_CLASSES` has its columns from the table's own words, so a new one needs nothing
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingestor.codec.fields import CAUSE_NAMES
from ingestor.consumer.joining import Joiner, Piece
from ingestor.history.readable import Prices, Times
from ingestor.model.batch import InstrumentLike, TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Instrument
from ingestor.model.row_classes import (
    RATE_EXPONENT,
    ROW_CLASSES,
    Exponent,
    RowClass,
    is_control,
)
from ingestor.model.rows import ABSENT, Kind, Rows

# A price times a size fits into the 38 digits that every library has: Arrow adds the digits of both
# and one, and DuckDB multiplies in 18 digits where neither has more.
_DIGITS: Final = 18
_PRICE_DIGITS: Final = 19
_DIGITS_MAX: Final = 38
_INT64_MAX: Final = 2**63 - 1
_EXPONENT_COLUMNS: Final = ("price_exponent", "size_exponent")
_KIND_NAMES: Final[Mapping[int, str]] = {Kind.GAP: "gap", Kind.RESET: "reset"}
_Names = Mapping[int, str]
_Mask = NDArray[np.bool_]  # of rows whose field means nothing, or None


@dataclass(frozen=True, slots=True)
class FrameForm:
    """Say how numbers and times are written.

    prices: "decimal" (exact), "float" (float64) or "raw" (int64 in units of 10^-exponent, beside
    the exponents). times: "utc" (timestamps of ns) or "ns" (int64 since the epoch). control_rows:
    keep GAP and RESET rows, which `kind` tells; their numbers are null.
    """

    prices: Prices = "decimal"
    times: Times = "utc"
    control_rows: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("prices", self.prices, get_args(Prices)),
            ("times", self.times, get_args(Times)),
        ):
            if value not in choices:
                wanted = ", ".join(repr(choice) for choice in choices)
                raise ConfigError(f"{name} is {value!r}", hint=f"say one of {wanted}")


def to_arrow(
    batches: Iterable[TickBatch],
    row_class: RowClass | str,
    *,
    prices: Prices = "decimal",
    times: Times = "utc",
    control_rows: bool = False,
    metadata: Mapping[str, Instrument] | None = None,
) -> pa.Table:
    """Return the rows of one class as an Arrow table, in the order in which they come.

    Args:
        batches: Of a consumer or a recording. Those of other classes are left out.
        row_class: The class, or its channel, such as "trades".
        prices: See `FrameForm`.
        times: See `FrameForm`.
        control_rows: Keep GAP and RESET rows.
        metadata: By key, of instruments of which the batches have no canonical symbol.

    Raises:
        ConfigError: For a form that there is not.
    """
    if isinstance(row_class, str):
        row_class = ROW_CLASSES.of_channel(row_class)
    form = FrameForm(prices, times, control_rows)
    joiner = Joiner()
    own = [Piece.of(batch, 0) for batch in batches if batch.row_class is row_class]
    rows: Rows = np.zeros(0, row_class.dtype)
    for chunk in joiner.join(own):
        rows = chunk.batch.rows
    if not control_rows:
        control = is_control(rows)
        rows = rows[~control] if control.any() else rows
    return _Table(row_class, rows, joiner.instruments, metadata or {}, form).table()


class _Table:
    """One table in the making."""

    def __init__(
        self,
        row_class: RowClass,
        rows: Rows,
        instruments: Sequence[InstrumentLike],
        metadata: Mapping[str, Instrument],
        form: FrameForm,
    ) -> None:
        self._row_class = row_class
        self._rows = rows
        self._numbers: NDArray[np.intp] = rows["instrument"].astype(np.intp)
        self._instruments = instruments
        self._metadata = metadata
        self._form = form
        self._control: _Mask | None = is_control(rows) if form.control_rows else None

    def table(self) -> pa.Table:
        """Return it: what an instrument is called, the header, the fields."""
        row_class, rows = self._row_class, self._rows
        columns = self._instrument_columns()
        if self._control is not None:
            kinds: dict[int, str] = {row_class.id: row_class.kind_name, **_KIND_NAMES}
            columns["kind"] = _named(rows["kind"], kinds)
        for name in ("ts_event", "ts_recv"):
            columns[name] = self._time(name)
        columns["sequence"] = pa.array(np.ascontiguousarray(rows["sequence"]))
        columns["flags"] = pa.array(np.ascontiguousarray(rows["flags"]))
        names = {**row_class.names, **row_class.labels}
        if "side" in names:
            columns["side"] = _named(rows["side"], names["side"], self._control)
        columns |= self._fields(names)
        if self._control is not None:
            columns |= self._control_columns()
        return pa.table(columns)

    def _instrument_columns(self) -> dict[str, pa.Array]:
        parts = [instrument.key.split(":", 2) for instrument in self._instruments]
        canonical = [self._canonical(instrument) for instrument in self._instruments]
        return {
            "instrument": self._of_instrument([instrument.key for instrument in self._instruments]),
            "venue": self._of_instrument([part[0] for part in parts]),
            "market": self._of_instrument([part[1] for part in parts]),
            "symbol": self._of_instrument([part[2] for part in parts]),
            "canonical": self._of_instrument(canonical),
        }

    def _canonical(self, one: InstrumentLike) -> str:
        """Return an instrument's canonical symbol, "" where nobody says it."""
        found = one if isinstance(one, Instrument) else self._metadata.get(one.key)
        return found.canonical if found is not None else ""

    def _of_instrument(self, texts: Sequence[str]) -> pa.Array:
        """Return each row's text, null where its instrument has an empty one."""
        unique = sorted({*texts} - {""})
        places = {text: place for place, text in enumerate(unique)}
        codes = np.array([places.get(text, -1) for text in texts], np.int32)[self._numbers]
        return _dictionary(codes, unique)

    def _fields(self, names: Mapping[str, _Names]) -> dict[str, pa.Array]:
        row_class, rows = self._row_class, self._rows
        id_of = {halves[0]: name for name, halves in row_class.ids.items()}
        low_halves = {low for _, low in row_class.ids.values()}
        columns: dict[str, pa.Array] = {}
        for name in row_class.fields:
            if name in row_class.numbers:
                columns[name] = self._number(name, row_class.numbers[name])
            elif name in id_of:
                columns[id_of[name]] = self._ids(*row_class.ids[id_of[name]])
            elif name in names:
                columns[name] = _named(rows[name], names[name], self._control)
            elif name.endswith("_ns"):
                columns[name] = self._time(name)
            elif name not in low_halves and (name != "exponent" or self._form.prices == "raw"):
                values = np.ascontiguousarray(rows[name])
                columns[name] = pa.array(values, mask=self._missing(name))
        if self._form.prices == "raw":
            for name in _EXPONENT_COLUMNS:
                columns[name] = pa.array(self._exponents(name).astype(np.int8))
        return columns

    def _control_columns(self) -> dict[str, pa.Array]:
        rows = self._rows.view(self._row_class.control)
        is_gap = rows["kind"] == Kind.GAP
        columns: dict[str, pa.Array] = {"cause": _named(rows["cause"], CAUSE_NAMES, ~is_gap)}
        for name in ("first", "last"):
            columns[name] = pa.array(np.ascontiguousarray(rows[name]), mask=~is_gap)
        return columns

    def _time(self, name: str) -> pa.Array:
        mask = None if name.startswith("ts_") else self._missing(name)
        values = pa.array(np.ascontiguousarray(self._rows[name]), pa.int64(), mask=mask)
        if self._form.times == "ns":
            return values
        is_span = name == "interval_ns"
        return values.cast(pa.duration("ns") if is_span else pa.timestamp("ns", "UTC"))

    def _number(self, name: str, unit: Exponent) -> pa.Array:
        values, missing = np.ascontiguousarray(self._rows[name]), self._missing(name)
        if self._form.prices == "raw":
            return pa.array(values, mask=missing)
        exponents = self._exponents_of(unit)
        if self._form.prices == "float":
            return pa.array(values / 10.0**exponents, mask=missing)
        digits = _PRICE_DIGITS if unit is Exponent.PRICE else _DIGITS
        return _decimals(values, exponents, missing, digits)

    def _missing(self, name: str) -> _Mask | None:
        """Return the rows in which a field means nothing: control rows, and where it is absent."""
        if name not in self._row_class.optional:
            return self._control
        absent: _Mask = self._rows[name] == ABSENT
        return absent if self._control is None else absent | self._control

    def _exponents_of(self, unit: Exponent) -> NDArray[np.int64]:
        """Return the exponent of each row's numbers of a unit."""
        if unit is Exponent.PRICE:
            return self._exponents("price_exponent")
        if unit is Exponent.SIZE:
            return self._exponents("size_exponent")
        if unit is Exponent.OWN:
            return self._rows["exponent"].astype(np.int64)
        return np.full(len(self._rows), RATE_EXPONENT, np.int64)

    def _exponents(self, name: str) -> NDArray[np.int64]:
        of_instruments = [getattr(instrument, name) for instrument in self._instruments]
        found: NDArray[np.int64] = np.array(of_instruments, np.int64)[self._numbers]
        return found

    def _ids(self, high: str, low: str) -> pa.Array:
        """Return 128-bit ids as text: decimals, or UUIDs where the high half is set."""
        lows = np.ascontiguousarray(self._rows[low])
        highs = np.ascontiguousarray(self._rows[high])
        if self._control is not None:
            lows, highs = np.where(self._control, 0, lows), np.where(self._control, 0, highs)
        texts = pa.array(lows, mask=(lows == 0) & (highs == 0)).cast(pa.string())
        is_wide = highs != 0
        if not is_wide.any():
            return texts
        return pc.replace_with_mask(texts, pa.array(is_wide), _uuids(highs[is_wide], lows[is_wide]))


def _dictionary(codes: NDArray[np.int32], texts: Sequence[str]) -> pa.Array:
    """Return texts by code; -1 is null."""
    missing = codes < 0
    indices = pa.array(codes, mask=missing if missing.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string()))


def _named(values: NDArray[Any], names: _Names, mask: _Mask | None = None) -> pa.Array:
    """Return the names of small numbers; null where one has no name, and where the mask says."""
    codes = np.full(256, -1, np.int32)
    for place, number in enumerate(names):
        codes[number] = place
    found = codes[values]
    if mask is not None:
        found[mask] = -1
    return _dictionary(found, list(names.values()))


def _decimals(
    values: NDArray[np.int64], exponents: NDArray[np.int64], mask: _Mask | None, digits: int
) -> pa.Array:
    """Return values x 10^-exponent as decimals of one scale, the largest exponent.

    digits: how many they have at least.
    """
    if mask is not None:
        values = np.where(mask, 0, values)
        exponents = np.where(mask, 0, exponents)
    scale = int(exponents.max(initial=0))
    largest = 0
    present = np.flatnonzero(np.bincount(exponents)).tolist()
    for exponent in present:
        own = values if len(present) == 1 else values[exponents == exponent]
        most = max(int(own.max()), -int(own.min()))
        largest = max(largest, most * 10 ** (scale - exponent))
    digits = max(digits, scale, len(str(largest)))
    if digits > _DIGITS_MAX:
        raise ConfigError(
            f"numbers of {digits} digits fit into no decimal", hint="use prices='float' or 'raw'"
        )
    halves = np.empty((len(values), 2), np.int64)
    if largest <= _INT64_MAX:
        factors = np.array([10**n if 10**n <= _INT64_MAX else 0 for n in range(scale + 1)])
        halves[:, 0] = values * (factors[scale - exponents] if len(present) > 1 else 1)
        halves[:, 1] = halves[:, 0] >> 63
    else:
        pairs = zip(values.tolist(), exponents.tolist(), strict=True)
        whole = [(value * 10 ** (scale - exponent)) for value, exponent in pairs]
        packed = b"".join([value.to_bytes(16, "little", signed=True) for value in whole])
        halves = np.frombuffer(packed, np.int64).reshape(-1, 2)
    validity = None if mask is None else pa.py_buffer(np.packbits(~mask, bitorder="little"))
    buffers = [validity, pa.py_buffer(halves)]
    return pa.Array.from_buffers(pa.decimal128(digits, scale), len(values), buffers)


def _uuids(highs: NDArray[np.uint64], lows: NDArray[np.uint64]) -> pa.Array:
    """Return 128-bit integers as the text of a UUID."""
    octets = np.stack([highs, lows], axis=1).astype(">u8").tobytes()
    digits = np.frombuffer(octets.hex().encode(), np.uint8).reshape(-1, 32)
    texts = np.insert(digits, [8, 12, 16, 20], ord("-"), axis=1)
    offsets = np.arange(len(highs) + 1, dtype=np.int32) * 36
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(texts))]
    return pa.Array.from_buffers(pa.string(), len(highs), buffers)
