"""Turn batches of rows of any recording into frames of the libraries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.row_classes import ROW_CLASSES

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class Readable(ABC):
    """Rows of some kinds; iterate it as often as you like."""

    __slots__ = ()
    kinds: tuple[str, ...]

    @abstractmethod
    def __iter__(self) -> Iterator[TickBatch]:
        """Yield the rows."""

    def to_arrow(self, kind: str = "") -> pa.Table:
        """Return all rows of one kind (needed only where several were asked for).

        Columns: those of the Parquet files, `instrument` being the key. Raises ConfigError.
        """
        import pyarrow as pa  # noqa: PLC0415  # an extra

        from ingestor.recording.parquet import schema, to_arrow  # noqa: PLC0415  # needs the extra

        kind = self._one(kind)
        row_class = ROW_CLASSES.of_channel(kind)
        tables = [to_arrow(batch) for batch in self if batch.row_class is row_class]
        if not tables:
            return schema(row_class).empty_table()
        return pa.concat_tables(tables).unify_dictionaries()

    def to_polars(self, kind: str = "") -> pl.DataFrame:
        """As `to_arrow`."""
        import polars as pl  # noqa: PLC0415  # an extra

        frame = pl.from_arrow(self.to_arrow(kind))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_pandas(self, kind: str = "") -> pd.DataFrame:
        """As `to_arrow`."""
        return self.to_arrow(kind).to_pandas()

    def _one(self, kind: str) -> str:
        if kind in self.kinds:
            return kind
        if not kind and len(self.kinds) == 1:
            return self.kinds[0]
        raise ConfigError(
            f"no kind {kind!r} was opened" if kind else "several kinds were opened",
            hint=f"say one of {', '.join(self.kinds)}",
        )
