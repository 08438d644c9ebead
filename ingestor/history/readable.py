"""Turn batches of rows of any recording into frames of the libraries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Instrument

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


Prices = Literal["decimal", "float", "raw"]
Times = Literal["utc", "ns"]


class Form(TypedDict, total=False):
    """Say how frames are written: the options of `Readable.to_arrow`."""

    prices: Prices
    times: Times
    control_rows: bool


class Readable(ABC):
    """Rows of some kinds; iterate it as often as you like."""

    __slots__ = ()
    kinds: tuple[str, ...]

    @abstractmethod
    def __iter__(self) -> Iterator[TickBatch]:
        """Yield the rows."""

    @abstractmethod
    def only(self, kind: str) -> Readable:
        """Return the rows of one of the kinds, without reading the others."""

    def metadata(self) -> Mapping[str, Instrument]:
        """Return what is known of instruments beside what the batches say, by key."""
        return {}

    def to_arrow(
        self,
        kind: str = "",
        *,
        prices: Prices = "decimal",
        times: Times = "utc",
        control_rows: bool = False,
    ) -> pa.Table:
        """Return all rows of one kind as an Arrow table.

        Args:
            kind: Which kind; needed only where several were asked for.
            prices: "decimal" (exact), "float", or "raw" (int64 beside the exponents).
            times: "utc" (timestamps) or "ns" (int64 since the epoch).
            control_rows: Keep GAP and RESET rows, told by the column `kind`.

        Raises:
            ConfigError: For a kind that was not asked for, and for a form that there is not.
        """
        from ingestor.history.frames import to_arrow  # noqa: PLC0415  # needs the extra

        kind = self._one(kind)
        return to_arrow(
            self.only(kind),
            kind,
            prices=prices,
            times=times,
            control_rows=control_rows,
            metadata=self.metadata(),
        )

    def to_polars(self, kind: str = "", **form: Unpack[Form]) -> pl.DataFrame:
        """Return all rows of one kind as a Polars frame: see `to_arrow`."""
        import polars as pl  # noqa: PLC0415  # an extra

        frame = pl.from_arrow(self.to_arrow(kind, **form))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_pandas(self, kind: str = "", **form: Unpack[Form]) -> pd.DataFrame:
        """Return all rows of one kind as a pandas frame: see `to_arrow`.

        Decimals stay in Arrow's memory, where they are exact and as fast as numbers.
        """
        import pandas as pd  # noqa: PLC0415  # an extra
        import pyarrow as pa  # noqa: PLC0415  # an extra

        def dtype_of(arrow: pa.DataType) -> pd.ArrowDtype | None:
            return pd.ArrowDtype(arrow) if pa.types.is_decimal(arrow) else None

        return self.to_arrow(kind, **form).to_pandas(types_mapper=dtype_of)

    def _one(self, kind: str) -> str:
        if kind in self.kinds:
            return kind
        if not kind and len(self.kinds) == 1:
            return self.kinds[0]
        raise ConfigError(
            f"no kind {kind!r} was opened" if kind else "several kinds were opened",
            hint=f"say one of {', '.join(self.kinds)}",
        )
