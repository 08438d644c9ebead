"""Everything that is derived from the rows of one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ingestor.derived.book_tops import BookTops
from ingestor.derived.candles import Candles
from ingestor.derived.settings import DerivedSettings
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows


class DerivedRows:
    """Makes the derived rows of each flush."""

    def __init__(
        self, table: InstrumentTable, settings_of: Callable[[int], DerivedSettings]
    ) -> None:
        """Create the derived rows.

        Args:
            table: the instruments, may grow.
            settings_of: instrument number -> what is derived for it.
        """
        self._table, self._settings_of = table, settings_of
        self._candles = Candles(table, settings_of)
        self._tops = BookTops(table, settings_of)

    def take(self, trades: Rows, levels: Rows, now_ns: int) -> dict[RowClass, Rows]:
        """Return what follows from the rows of a flush, by class.

        Args:
            trades: TRADE rows with their GAPs, in order of arrival.
            levels: LEVEL rows with their GAPs and RESETs, in order of arrival.
            now_ns: ns since the epoch; all that was received before has been taken.
        """
        found = self._tops.take(levels, now_ns)
        candles = self._candles.take(trades, now_ns)
        if len(candles):
            found[RowClass.CANDLE] = candles
        return found

    def begun_anew(self) -> DerivedRows:
        """Return what derives the same rows and knows nothing: candles are PARTIAL at first, and
        books have tops after their next snapshot.
        """
        return DerivedRows(self._table, self._settings_of)

    def skip_to(self, now_ns: int) -> None:
        """Take no tops of books of the time up to `now_ns`: nothing ran then."""
        self._tops.skip_to(now_ns)

    def configure(self, settings_of: Callable[[int], DerivedSettings]) -> None:
        """Follow other settings, between two flushes; instruments whose own are equal go on."""
        self._settings_of = settings_of
        self._candles.configure(settings_of)
        self._tops.configure(settings_of)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._candles.replace_instruments(numbers)
        self._tops.replace_instruments(numbers)
