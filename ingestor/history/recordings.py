"""Reading recordings back: batches of numpy rows, Arrow, Polars, pandas.

    from ingestor import history

    trades = history.open("recordings", start="2026-08-01T00:00:00Z", kinds=["trades"])
    for batch in trades:
        batch.rows["price"]     # int64, in units of 10^-exponent of its instrument
    frame = trades.to_polars()  # needs the extra `parquet`

A folder with `ticks/` is read from there (fast; each hour sorted by instrument, then time).
Any other is replayed from raw frames (in the order of receipt). "kafka://localhost:9092/md." are
the topics of that prefix, sought by time (in order per instrument).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ingestor.consumer.positions import Where, position_of
from ingestor.history.readable import Readable
from ingestor.model.batch import TickBatch
from ingestor.model.errors import MALFORMED, ConfigError, RecordingError
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import ABSENT, Rows
from ingestor.model.timestamps import SECOND, time_ns
from ingestor.recording.files import regular_files
from ingestor.recording.reader import Problems
from ingestor.sources.replay.filters import check_symbols, matches_any
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_HOUR_S: Final = 3_600
_BATCH_ROWS: Final = 1 << 16
_GROUP_BYTES_MAX: Final = 64 << 20  # `compact` writes groups of at most 20 MiB
_METADATA_BYTES_MAX: Final = 8 << 20
_METADATA_ITEMS_MAX: Final = 100_000
_NAME: Final = re.compile(
    r"date=(?P<date>\d{4}-\d{2}-\d{2})/(?P<hour>[01]\d|2[0-3])-(?P<part>\d{1,6})\.parquet"
)


def open(  # noqa: A001  # called as recordings.open, as one opens a file
    path: str | Path,
    *,
    start: Where | None = None,
    end: Where | None = None,
    symbols: str | Iterable[str] = (),
    kinds: str | Iterable[str] = (),
    venue: str = "",
    market: str = "",
    kafka: Mapping[str, Any] | None = None,
) -> Readable:
    """Open a recording. Rows with start <= ts_recv < end come out.

    Args:
        path: File, folder or `kafka://` address.
        start: First time, inclusive; None for all. Of topics also offsets by (topic, partition).
        end: Last time, exclusive; None for all. Of topics also offsets.
        symbols: One or several: the venue's, canonical ones, or keys. Empty means all.
        kinds: One channel or several, such as trades, quotes, book. Empty means all.
        venue: The venue of a raw recording that does not name it.
        market: The market of a raw recording that does not name it.
        kafka: Options of aiokafka, for topics.

    Raises:
        ConfigError: A kind or a time is not valid, or nothing is recorded. At the end of reading:
            a symbol or a kind matched nothing; the text has the nearest name.
    """
    kinds = _several(kinds)
    for kind in kinds:
        if kind not in ROW_CLASSES.channels:
            raise ConfigError(
                f"no kind {kind!r}", hint=f"kinds are {', '.join(ROW_CLASSES.channels)}"
            )
    kinds = kinds or ROW_CLASSES.channels
    wanted = frozenset(_several(symbols))
    if str(path).startswith("kafka://"):
        from ingestor.history.topics import KafkaRecording, parse_url  # noqa: PLC0415  # slow

        servers, prefix = parse_url(str(path))
        for where in (start, end):
            if where is not None:
                position_of(where)  # an error is the caller's, before anything is read
        return KafkaRecording(servers, prefix, kinds, start, end, wanted, options=kafka or {})
    path = Path(path)
    if not path.exists():
        raise ConfigError("no such file or folder", where=str(path))
    return Recording(
        path=path,
        start_ns=_time_ns(start),
        end_ns=_time_ns(end),
        symbols=wanted,
        kinds=kinds,
        venue=venue,
        market=market,
    )


def _several(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) and names else tuple(names)


def _time_ns(where: Where | None) -> int | None:
    if isinstance(where, Mapping):
        raise ConfigError("offsets are of topics", hint="give a time")
    return None if where is None else time_ns(where)


@dataclass(frozen=True, slots=True)
class Recording(Readable):
    """A folder or file; what `open` returns for one."""

    path: Path
    start_ns: int | None
    end_ns: int | None
    symbols: frozenset[str]
    kinds: tuple[str, ...]
    venue: str = ""
    market: str = ""

    def __iter__(self) -> Iterator[TickBatch]:
        """Yield the rows. Raises ConfigError where nothing is recorded."""
        return self._parquet() if (self.path / "ticks").is_dir() else self._raw()

    def only(self, kind: str) -> Readable:
        """Return the rows of one of the kinds."""
        return replace(self, kinds=(kind,))

    def _raw(self) -> Iterator[TickBatch]:
        options = ReplayOptions(
            (self.path,),
            venue=self.venue,
            market=self.market,
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            symbols=self.symbols,
            channels=frozenset(() if set(self.kinds) == set(ROW_CLASSES.channels) else self.kinds),
        )
        replay = Replay(options, problems=Problems())
        for result in replay.results():
            yield from result.batches
        replay.check_filters()

    def _parquet(self) -> Iterator[TickBatch]:
        seen: dict[str, Instrument] = {}
        for kind in self.kinds:
            folder = self.path / "ticks" / f"kind={kind}"
            placed = ((file, _place(file)) for file in regular_files(folder))
            files = sorted((place, file) for file, place in placed if place is not None)
            for place, file in files:
                if self._may_hold(*place[:2]):
                    yield from self._file(file, ROW_CLASSES.of_channel(kind), seen)
        if seen:
            check_symbols(sorted(self.symbols), seen.values())

    def _may_hold(self, date: str, hour: str) -> bool:
        """Say whether a file's hour touches the range."""
        begins = int(datetime.fromisoformat(f"{date}T{hour}:00:00+00:00").timestamp())
        late_s = 5 * 60  # a frame may lie in the segment after its hour
        return not (
            (self.end_ns is not None and (begins - late_s) * SECOND >= self.end_ns)
            or (self.start_ns is not None and (begins + _HOUR_S) * SECOND <= self.start_ns)
        )

    def _file(
        self, file: Path, row_class: RowClass, seen: dict[str, Instrument]
    ) -> Iterator[TickBatch]:
        """Yield the rows of a file; note its instruments by key.

        Raises RecordingError where it is none of ours.
        """
        import pyarrow as pa  # noqa: PLC0415  # an extra
        import pyarrow.parquet as pq  # noqa: PLC0415  # an extra

        from ingestor.recording.parquet import column_names  # noqa: PLC0415  # needs it

        try:
            source = pq.ParquetFile(
                file,
                read_dictionary=["instrument"],
                thrift_string_size_limit=_METADATA_BYTES_MAX,
                thrift_container_size_limit=_METADATA_ITEMS_MAX,
            )
            with source:
                by_key = _Numbers(_instruments(source))
                seen.update((instrument.key, instrument) for instrument in by_key.instruments)
                names = column_names(row_class)
                wanted = ["instrument", *names.values(), *by_key.columns]
                for columns in source.iter_batches(_BATCH_ROWS, columns=wanted):
                    rows: Rows = np.empty(len(columns), row_class.dtype)
                    for field, name in names.items():
                        column = columns.column(name)
                        if field in row_class.optional:
                            column = column.fill_null(ABSENT)
                        rows[field] = column.to_numpy()
                    rows["instrument"] = by_key.of(columns)
                    rows = self._within(rows, by_key.instruments)
                    if len(rows):
                        yield TickBatch(row_class, rows, by_key.table)
        except (pa.ArrowException, OSError, *MALFORMED) as failure:
            if isinstance(failure, OSError) and failure.errno is not None:
                raise  # the disk's fault, not the file's
            what = " ".join(f"is no file that `compact` wrote: {failure}".split())
            raise RecordingError(str(file), 0, what) from None

    def _within(self, rows: Rows, instruments: Sequence[Instrument]) -> Rows:
        if self.symbols:
            wanted = [matches_any(instrument, self.symbols) for instrument in instruments]
            rows = rows[np.array(wanted, np.bool_)[rows["instrument"]]]
        if self.start_ns is not None:
            rows = rows[rows["ts_recv"] >= self.start_ns]
        if self.end_ns is not None:
            rows = rows[rows["ts_recv"] < self.end_ns]
        return rows


class _Numbers:
    """Instrument numbers of a file.

    Keys name them, but for two revisions of one instrument, which their exponents tell apart.
    """

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self.instruments = instruments
        self.table = InstrumentTable()
        self._by_key: dict[str, int] = {}
        self._by_exponents: dict[tuple[str, int, int], int] = {}
        for instrument in instruments:
            number = self.table.add(instrument)
            self._by_key[instrument.key] = number
            self._by_exponents[
                instrument.key, instrument.price_exponent, instrument.size_exponent
            ] = number
        self._is_plain = len(self._by_key) == len(instruments)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns beside `instrument` that are needed to tell them apart."""
        return () if self._is_plain else ("price_exponent", "size_exponent")

    def of(self, columns: Any) -> Any:
        """Return the number of each row of an Arrow record batch."""
        coded = columns.column("instrument")
        keys = coded.dictionary.to_pylist()
        codes = coded.indices.to_numpy()
        if self._is_plain:
            return np.array([self._by_key[key] for key in keys], np.uint32)[codes]
        exponents = (columns.column(name).to_pylist() for name in self.columns)
        return [
            self._by_exponents[keys[code], price, size]
            for code, price, size in zip(codes.tolist(), *exponents, strict=True)
        ]


def _place(file: Path) -> tuple[str, str, int] | None:
    """Return date, hour and part of a Parquet file of ours; None for any other file."""
    match = _NAME.fullmatch(f"{file.parent.name}/{file.name}")
    return (match["date"], match["hour"], int(match["part"])) if match else None


def _instruments(source: pq.ParquetFile) -> list[Instrument]:
    """Return the instruments that a file's metadata name.

    Raises one of MALFORMED when it is none of ours, or made to take memory.
    """
    from ingestor.recording.parquet import TABLE_KEY  # noqa: PLC0415  # needs an extra

    for number in range(source.num_row_groups):
        size = source.metadata.row_group(number).total_byte_size
        if size > _GROUP_BYTES_MAX:
            raise ValueError(f"row group {number} takes {size:,} bytes")
    texts = json.loads((source.schema_arrow.metadata or {})[TABLE_KEY])
    return [Instrument.from_json(text) for text in texts]
