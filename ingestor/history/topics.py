"""Topics read back by time range, with the reading API of recordings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.consumer import EARLIEST, Consumer, iterate
from ingestor.history.readable import Readable
from ingestor.model.batch import Instruments, TickBatch
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.model.timestamps import SECOND
from ingestor.sources.replay.filters import refuse_symbol

SCHEME: Final = "kafka://"
DEFAULT_PREFIX: Final = "md."


@dataclass(frozen=True, slots=True)
class KafkaRecording(Readable):
    """Rows with start <= ts_recv < end out of tick topics; in order per instrument.

    symbols: the venue's, or keys. margin_s: partitions are sought by record time, which several
    publishers put out of order by as much as this. It ends at the end of the range, or where the
    topics ended when reading began. options: passed on to aiokafka (security).
    """

    bootstrap_servers: str
    prefix: str
    kinds: tuple[str, ...]
    start_ns: int | None = None
    end_ns: int | None = None
    symbols: frozenset[str] = frozenset()
    margin_s: float = 10.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[TickBatch]:
        """Yield the rows, on a loop of its own, also where one runs: in Jupyter.

        Raises IngestError where Kafka or a topic is not there, CodecError for foreign records.
        """
        return iterate(self.__aiter__)

    async def __aiter__(self) -> AsyncIterator[TickBatch]:
        row_classes = [ROW_CLASSES.of_channel(kind) for kind in self.kinds]
        is_all = len(self.kinds) == len(ROW_CLASSES)
        others = [self.prefix + one.topic for one in row_classes if not one.is_standard]
        async with Consumer(
            self.bootstrap_servers,
            [self.prefix + row_class.topic for row_class in row_classes],
            may_be_absent=others if is_all else (),
            start=EARLIEST if self.start_ns is None else self.start_ns,
            end=self.end_ns,
            margin_ns=int(self.margin_s * SECOND),
            stop_at_end=self.end_ns is None,
            **self.options,
        ) as consumer:
            keys: set[str] = set()
            async for batch in consumer:
                if self.symbols:
                    keys |= {batch.instruments[n].key for n in range(len(batch.instruments))}
                wanted = self._wanted(batch)
                if wanted.all():
                    yield batch
                elif wanted.any():
                    yield TickBatch(batch.row_class, batch.rows[wanted], batch.instruments)
            if keys:
                names = keys | {key.split(":", 2)[2] for key in keys}
                for symbol in sorted(self.symbols - names):
                    refuse_symbol(symbol, names)

    def _wanted(self, batch: TickBatch) -> NDArray[np.bool_]:
        rows = batch.rows
        wanted = np.ones(len(rows), np.bool_)
        if self.start_ns is not None:
            wanted &= rows["ts_recv"] >= self.start_ns
        if self.end_ns is not None:
            wanted &= rows["ts_recv"] < self.end_ns
        if self.symbols:
            wanted &= self._is_asked_for(batch.instruments)[rows["instrument"]]
        return wanted

    def _is_asked_for(self, instruments: Instruments) -> NDArray[np.bool_]:
        keys = [instruments[number].key for number in range(len(instruments))]
        symbols = self.symbols
        return np.array([key in symbols or key.split(":", 2)[2] in symbols for key in keys])


def parse_url(url: str) -> tuple[str, str]:
    """Return (bootstrap servers, topic prefix) of "kafka://host:9092[,host...]/md."; without a
    path the prefix is the default one."""
    servers, slash, prefix = url.removeprefix(SCHEME).partition("/")
    return servers, prefix if slash else DEFAULT_PREFIX
