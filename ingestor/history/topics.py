"""Topics read back by time range, with the reading API of recordings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from ingestor.consumer import EARLIEST, Consumer, LoopThread, Where, iterate, read_metadata
from ingestor.consumer.positions import position_of
from ingestor.history.readable import Readable
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import Instrument
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.model.rows import Rows
from ingestor.model.timestamps import SECOND
from ingestor.sources.replay.filters import refuse_symbol

SCHEME: Final = "kafka://"
DEFAULT_PREFIX: Final = "md."


@dataclass(frozen=True, slots=True)
class KafkaRecording(Readable):
    """Rows out of tick topics, in order of `ts_recv` (of one kind: in order per instrument).

    start, end: times, of which rows with start <= ts_recv < end come; or positions, as a Consumer
    takes them. symbols: the venue's, canonical ones, or keys. margin_s: partitions are sought by
    record time, which several publishers put out of order by as much as this. It ends at the end of
    the range, or where the topics ended when reading began. options: passed on to aiokafka
    (security).
    """

    bootstrap_servers: str
    prefix: str
    kinds: tuple[str, ...]
    start: Where | None = None
    end: Where | None = None
    symbols: frozenset[str] = frozenset()
    margin_s: float = 10.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[TickBatch]:
        """Yield the rows, on a loop of its own, also where one runs: in Jupyter.

        Raises IngestError where Kafka or a topic is not there.
        """
        return iterate(self.__aiter__)

    async def __aiter__(self) -> AsyncIterator[TickBatch]:
        row_classes = [ROW_CLASSES.of_channel(kind) for kind in self.kinds]
        is_all = len(self.kinds) == len(ROW_CLASSES)
        others = [
            self.prefix + row_class.topic for row_class in row_classes if not row_class.is_standard
        ]
        chosen = _Chosen(
            _time_of(self.start),
            _time_of(self.end),
            self.symbols,
            await self._read_metadata() if self.symbols else {},
        )
        async with Consumer(
            self.bootstrap_servers,
            [self.prefix + row_class.topic for row_class in row_classes],
            may_be_absent=others if is_all else (),
            start=EARLIEST if self.start is None else self.start,
            end=self.end,
            margin_ns=int(self.margin_s * SECOND),
            stop_at_end=self.end is None,
            **self.options,
        ) as consumer:
            async for batch in consumer:
                rows = chosen.of(batch)
                if len(rows):
                    yield TickBatch(batch.row_class, rows, batch.instruments)
            chosen.check()

    def only(self, kind: str) -> Readable:
        """Return the rows of one of the kinds."""
        return replace(self, kinds=(kind,))

    def metadata(self) -> Mapping[str, Instrument]:
        """Return what the topic of instruments says, by key."""
        with LoopThread() as thread:
            return thread.run(self._read_metadata())

    async def _read_metadata(self) -> dict[str, Instrument]:
        return await read_metadata(self.bootstrap_servers, self.prefix, **self.options)


class _Chosen:
    """Picks rows by time and instrument."""

    def __init__(
        self,
        start_ns: int | None,
        end_ns: int | None,
        symbols: frozenset[str],
        metadata: Mapping[str, Instrument],
    ) -> None:
        self._start_ns = start_ns
        self._end_ns = end_ns
        self._symbols = symbols
        self._metadata = metadata
        self._wanted: list[bool] = []  # by number of instrument
        self._names: set[str] = set()

    def of(self, batch: TickBatch) -> Rows:
        """Return the rows of a batch that were asked for."""
        rows = batch.rows
        wanted = np.ones(len(rows), np.bool_)
        if self._start_ns is not None:
            wanted &= rows["ts_recv"] >= self._start_ns
        if self._end_ns is not None:
            wanted &= rows["ts_recv"] < self._end_ns
        if self._symbols:
            for number in range(len(self._wanted), len(batch.instruments)):
                names = self._names_of(batch.instruments[number].key)
                self._names |= names
                self._wanted.append(not names.isdisjoint(self._symbols))
            wanted &= np.array(self._wanted, np.bool_)[rows["instrument"]]
        return rows if wanted.all() else rows[wanted]

    def check(self) -> None:
        """Raise ConfigError for a symbol that no instrument has, where there were rows."""
        if self._names:
            for symbol in sorted(self._symbols - self._names):
                refuse_symbol(symbol, self._names)

    def _names_of(self, key: str) -> set[str]:
        found = self._metadata.get(key)
        return {key, key.split(":", 2)[2], *([found.canonical] if found else [])}


def _time_of(where: Where | None) -> int | None:
    """Return the time that a position is, in ns; None for offsets and words."""
    if where is None:
        return None
    position = position_of(where)
    return None if position.offsets else position.time_ns


def parse_url(url: str) -> tuple[str, str]:
    """Return (bootstrap servers, topic prefix) of "kafka://host:9092[,host...]/md."; without a
    path the prefix is the default one.
    """
    servers, slash, prefix = url.removeprefix(SCHEME).partition("/")
    return servers, prefix if slash else DEFAULT_PREFIX
