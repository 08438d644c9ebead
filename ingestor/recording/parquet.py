"""Normalised Parquet, derived from raw recordings by replay.

    <root>/ticks/kind=trades|quotes|book|.../venue=.../date=.../<hour>-<part>.parquet

Prices and sizes are int64 beside int8 exponents; times are int64 ns since the epoch. Each file is
sorted by instrument and time (of receipt, then as it came). One hour of one venue is the unit:
files appear whole, under names that depend on nothing but the recording, so compacting again gives
the same files. A manifest says which segments each hour was made from; what is unchanged is left
alone. Needs the extra `parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ingestor.model.batch import TickBatch
from ingestor.model.decimals import EXPONENT_MAX
from ingestor.model.errors import MALFORMED, RecordingError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RATE_EXPONENT, ROW_CLASSES, Exponent, RowClass
from ingestor.model.rows import ABSENT, Rows
from ingestor.recording.files import create_exclusively, open_regular, regular_files
from ingestor.recording.format import HOUR_NS
from ingestor.recording.segments import write_atomically

ROWS_PER_FILE: Final = 4_000_000
ROWS_PER_GROUP: Final = 1 << 18
TABLE_KEY: Final = b"ingestor.instruments"  # file metadata: JSON list of `Instrument.to_json`
_OURS: Final = "[0-9][0-9]-*.parquet"  # names of files
MANIFEST: Final = "manifest.json"
MANIFEST_BYTES_MAX: Final = 8 << 20  # a year of hours of ten venues
VERSION: Final = 1

_CODED: Final = [
    *("instrument", "flags", "side", "row_kind"),
    *("price_exponent", "size_exponent"),
]

# Row field -> Parquet column; `side` is the cause on a GAP row. `instrument` is the key.
_RENAMED: Final = {"kind": "row_kind"}


def column_names(row_class: RowClass) -> dict[str, str]:
    """Return row field -> Parquet column for every field but `instrument`."""
    names = row_class.dtype.names or ()
    return {name: _RENAMED.get(name, name) for name in names if name != "instrument"}


def schema(row_class: RowClass) -> pa.Schema:
    """Return the columns of a file, in order."""
    dtype = row_class.dtype
    return pa.schema(
        [
            ("instrument", pa.dictionary(pa.int32(), pa.string())),
            *(
                (column, pa.from_numpy_dtype(dtype[name]))
                for name, column in column_names(row_class).items()
            ),
            ("price_exponent", pa.int8()),
            ("size_exponent", pa.int8()),
        ]
    )


def to_table(rows: Rows, row_class: RowClass, table: InstrumentTable) -> pa.Table:
    """Return rows as an Arrow table, sorted by instrument key and time of receipt.

    Args:
        rows: Rows of one class, in the order they came.
        row_class: Their class.
        table: Their instruments.
    """
    numbers = np.unique(rows["instrument"])
    numbers = np.array(sorted(numbers.tolist(), key=lambda one: (table[one].key, one)), np.uint32)
    rank = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)
    rank[numbers] = np.arange(len(numbers))
    ranks = rank[rows["instrument"]]
    order = np.lexsort((rows["ts_recv"], ranks))  # stable: ties stay as they came
    ranks, rows = ranks[order], rows[order]
    instruments = [table[int(number)] for number in numbers]
    columns: list[Any] = [
        pa.DictionaryArray.from_arrays(
            pa.array(ranks, pa.int32()),
            pa.array([instrument.key for instrument in instruments], pa.string()),
        )
    ]
    columns += [_column(row_class, rows, name) for name in column_names(row_class)]
    for exponents in (table.price_exponents, table.size_exponents):
        by_rank = exponents[numbers].astype(np.int8)
        columns.append(pa.array(by_rank[ranks]))
    metadata = {
        TABLE_KEY: json.dumps([instrument.to_json() for instrument in instruments]).encode()
    }
    return pa.Table.from_arrays(columns, schema=schema(row_class).with_metadata(metadata))


def _column(row_class: RowClass, rows: Rows, name: str) -> Any:
    """Return a field as a column; what is absent is null."""
    values = np.ascontiguousarray(rows[name])
    is_absent = values == ABSENT if name in row_class.optional else None
    if is_absent is not None:
        is_absent &= rows["kind"] == row_class.id  # a control row has other fields there
    return pa.array(values, mask=is_absent)


def write_file(path: Path, table: pa.Table) -> None:
    """Write a file that appears whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with create_exclusively(temporary) as file:
            pq.write_table(
                table,
                file,
                compression="zstd",
                compression_level=1,
                row_group_size=ROWS_PER_GROUP,
                use_dictionary=_CODED,
                write_statistics=["instrument", "ts_recv"],
            )
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class Unit:
    """One hour of one venue. hour: hours since the epoch."""

    venue: str
    hour: int

    def folder(self, root: Path, row_class: RowClass) -> Path:
        date = datetime.fromtimestamp(self.hour * 3_600, UTC).date()
        kind = row_class.channel
        return root / "ticks" / f"kind={kind}" / f"venue={self.venue}" / f"date={date}"

    @property
    def prefix(self) -> str:
        return f"{self.hour % 24:02d}-"


@dataclass(slots=True)
class _Part:
    chunks: list[Rows] = field(default_factory=list)
    rows: int = 0
    files: int = 0


class UnitWriter:
    """Gathers the rows of one unit and writes them as files; `close` removes what it replaces.

    Files have temporary names until `close`, so a crash leaves the old ones in place.
    """

    def __init__(
        self, root: Path, unit: Unit, table: InstrumentTable, rows_max: int = ROWS_PER_FILE
    ) -> None:
        self._root = root
        self._unit = unit
        self._table = table
        self._rows_max = rows_max
        self._parts = {row_class: _Part() for row_class in ROW_CLASSES}
        self.rows = 0

    def add(self, row_class: RowClass, rows: Rows) -> None:
        """Raises OSError."""
        part = self._parts[row_class]
        part.chunks.append(rows)
        part.rows += len(rows)
        self.rows += len(rows)
        if part.rows >= self._rows_max:
            self._write(row_class, part)

    def close(self) -> list[Path]:
        """Put the files in place; return them. Raises OSError."""
        written = []
        for row_class, part in self._parts.items():
            self._write(row_class, part)
            folder = self._unit.folder(self._root, row_class)
            for number in range(part.files):
                final = self._path(row_class, number)
                final.with_name(final.name + ".new").replace(final)
                written.append(final)
            for old in folder.glob(f"{self._unit.prefix}*.parquet"):
                if old not in written:
                    old.unlink()
        return written

    def _path(self, row_class: RowClass, number: int) -> Path:
        return self._unit.folder(self._root, row_class) / f"{self._unit.prefix}{number}.parquet"

    def _write(self, row_class: RowClass, part: _Part) -> None:
        if not part.rows:
            return
        rows = np.concatenate(part.chunks)
        final = self._path(row_class, part.files)
        write_file(final.with_name(final.name + ".new"), to_table(rows, row_class, self._table))
        part.chunks.clear()
        part.rows = 0
        part.files += 1


class ParquetSink:
    """A sink of replays: rows by the hour and venue in which they were received.

    Everything is held until `drain`, a file's worth at most for each hour and class, and nothing is
    in place before it. Files of the same hours are replaced.
    """

    def __init__(self, root: Path) -> None:
        self.files: list[Path] = []
        self._root = root
        self._units: dict[Unit, UnitWriter] = {}

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        """Raises OSError. `batch` must come from a pipeline."""
        table = batch.instruments
        assert isinstance(table, InstrumentTable)
        for unit, rows in by_unit(batch.rows, table):
            writer = self._units.get(unit)
            if writer is None:
                writer = self._units[unit] = UnitWriter(self._root, unit, table)
            writer.add(batch.row_class, rows)

    async def drain(self, timeout_s: float) -> int:
        """Write what waits and put every file in place. Raises OSError."""
        for writer in self._units.values():
            self.files += writer.close()
        self._units.clear()
        return 0


def by_unit(rows: Rows, table: InstrumentTable) -> Iterable[tuple[Unit, Rows]]:
    """Split rows by venue and hour of receipt, each part in the order it came."""
    hours = rows["ts_recv"] // HOUR_NS
    names = [instrument.venue for instrument in table]
    venues = sorted(set(names))
    codes = np.array([venues.index(name) for name in names], np.int64)[rows["instrument"]]
    keys: NDArray[np.int64] = hours * len(venues) + codes
    for key in np.unique(keys).tolist():
        hour, code = divmod(key, len(venues))
        yield Unit(venues[code], hour), rows[keys == key]


Manifest = dict[str, dict[str, int]]  # "venue hour" -> segment (relative to raw/) -> bytes


def load_manifest(root: Path) -> Manifest:
    """Return what each unit was made from; empty where there is no manifest of this version."""
    try:
        with open_regular(root / "ticks" / MANIFEST) as file:
            content: Mapping[str, Any] = json.loads(file.read(MANIFEST_BYTES_MAX))
        return dict(content["units"]) if content["version"] == VERSION else {}
    except (OSError, RecordingError, *MALFORMED):
        return {}


def save_manifest(root: Path, manifest: Manifest) -> None:
    """Raises OSError."""
    content = json.dumps({"version": VERSION, "units": manifest}, indent=1, sort_keys=True)
    path = root / "ticks" / MANIFEST
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.encode(), sync=True)


_EXPONENT_COLUMNS: Final = {
    Exponent.PRICE: "price_exponent",
    Exponent.SIZE: "size_exponent",
    Exponent.RATE: str(RATE_EXPONENT),
    Exponent.OWN: "exponent",
}


def _decimal(column: str, unit: Exponent, scale: int) -> str:
    """Return an expression: numbers of a unit as DECIMAL(38, scale)."""
    exponent, value = _EXPONENT_COLUMNS[unit], f"CAST({column} AS HUGEINT)"
    if unit is Exponent.OWN:  # a decimal has no room for all that a row may say
        beyond = f"greatest(CAST({exponent} AS INTEGER) - {scale}, 0)"
        value = f"({value} // CAST(pow(10, {beyond}) AS HUGEINT))"
        exponent = f"least(CAST({exponent} AS INTEGER), {scale})"
    cases = " ".join(f"WHEN {digits} THEN {10 ** (scale - digits)}" for digits in range(scale + 1))
    units = f"{value} * CAST(CASE {exponent} {cases} END AS HUGEINT)"
    unit_text = f"CAST({Decimal(1).scaleb(-scale):f} AS DECIMAL({scale + 1}, {scale}))"
    return f"CAST({units} AS DECIMAL({38 - scale - 1}, 0)) * {unit_text} AS {column}"


def _side(row_class: RowClass) -> list[str]:
    """Return an expression for the name of a row's side, where the class has sides."""
    names = {**row_class.names, **row_class.labels}.get("side", {})
    if not names:
        return []
    cases = " ".join(f"WHEN {value} THEN '{name}'" for value, name in names.items())
    return [f"CASE side {cases} END AS side"]


def _scales(files: Iterable[Path]) -> dict[Exponent, int]:
    """Return the largest exponents of the instruments that files name."""
    scales = dict.fromkeys(Exponent, EXPONENT_MAX)
    scales[Exponent.PRICE] = scales[Exponent.SIZE] = 0
    for file in files:
        metadata = pq.read_schema(file).metadata or {}
        for load in json.loads(metadata[TABLE_KEY]):
            for unit in (Exponent.PRICE, Exponent.SIZE):
                scales[unit] = max(scales[unit], load[_EXPONENT_COLUMNS[unit]])
    return scales


def duckdb_view(root: Path | str, kind: str) -> str:
    """Return a SELECT for DuckDB over all files of a kind, to stand in a FROM, in parentheses.

    Prices, sizes and rates are exact decimals, whose scale is the largest that an instrument of
    these files has, so that products and sums of them are exact too; of OWN numbers 18, whose
    decimals beyond are cut. What is absent is NULL, times of the header are TIMESTAMP_NS in UTC,
    sides have names. GAP and RESET rows are left out.

    Args:
        root: The folder of the recording, in which `ticks/` is.
        kind: The channel of a row class, such as "trades".

    Raises:
        RecordingError: Where nothing of that kind was compacted.
    """
    row_class = ROW_CLASSES.of_channel(kind)
    folder = Path(root) / "ticks" / f"kind={kind}"
    files = [file for file in regular_files(folder) if file.match(_OURS)]
    if not files:
        raise RecordingError(str(folder), 0, "nothing was compacted here: `ingestor compact`")
    scales = _scales(files)
    halves = {half for pair in row_class.ids.values() for half in pair}
    plain = [name for name in row_class.fields if name not in {*row_class.numbers, *halves}]
    columns = [
        "instrument",
        "venue",
        "split_part(instrument, ':', 2) AS market",
        "substr(instrument, length(venue) + length(split_part(instrument, ':', 2)) + 3) AS symbol",
        "make_timestamp_ns(ts_event) AS ts_event",
        "make_timestamp_ns(ts_recv) AS ts_recv",
        "sequence",
        "flags",
        *_side(row_class),
        *(_decimal(name, unit, scales[unit]) for name, unit in row_class.numbers.items()),
        *plain,
    ]
    pattern = str(folder / "**" / _OURS).replace("'", "''")
    return (  # the only text from outside is a path, quoted
        f"SELECT {', '.join(columns)} FROM read_parquet('{pattern}', hive_partitioning = true)"  # noqa: S608
        f" WHERE row_kind = {row_class.id}"
    )
