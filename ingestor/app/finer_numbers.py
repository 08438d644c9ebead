"""Numbers that are finer than their instrument's metadata allow: when to believe them.

A venue may send more digits than its list says. One such number may be a mistake, and widening for
it would make int64 too small for the others. Several distinct ones that stay while a fresh list
confirms the old increment are how the venue speaks: the instrument is widened to hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Rejected
from ingestor.decode.session import Session
from ingestor.model.decimals import EXPONENT_MAX
from ingestor.model.errors import BadNumber
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.sources.replay.column_digits import ColumnDigits
from ingestor.sources.replay.digits import Digits
from ingestor.sources.replay.market_reading import Nobody

DISTINCT_MIN: Final = 3  # numbers that are needed as evidence
TEXTS_MAX: Final = 16  # numbers that are kept for each instrument and field
PROBES_MAX: Final = 20  # frames that are read for evidence in one interval, of one market
INTERVAL_S: Final = 60.0
_NOBODY: Final = Nobody()

Key = tuple[str, str, str]  # venue, market, symbol


@dataclass(slots=True)
class _Evidence:
    """Finer numbers of one field: their printed decimals by text, and the most digits before."""

    decimals: dict[str, int] = field(default_factory=dict)
    whole: int = 1

    def exponent(self) -> int:
        """Return the most decimals that DISTINCT_MIN numbers have and int64 holds, 0 for none."""
        finest = sorted(self.decimals.values(), reverse=True)
        if len(finest) < DISTINCT_MIN:
            return 0
        wanted = finest[DISTINCT_MIN - 1]
        return wanted if wanted + self.whole <= EXPONENT_MAX else 0


@dataclass(slots=True)
class _Widened:
    """Remember how an instrument was widened, for as long as its increments stay the same."""

    tick_size: str
    lot_size: str
    price_exponent: int
    size_exponent: int


class FinerNumbers:
    """Collects evidence from refused frames, and widens instruments of fresh lists by it."""

    def __init__(self, table: InstrumentTable, clock_s: Callable[[], float]) -> None:
        """Create the finer numbers.

        Args:
            table: the instruments in force.
            clock_s: returns monotonic seconds.
        """
        self._table = table
        self._clock_s = clock_s
        self._prices: dict[Key, _Evidence] = {}
        self._sizes: dict[Key, _Evidence] = {}
        self._widened: dict[Key, _Widened] = {}
        self._probes: dict[tuple[str, str], tuple[float, int]] = {}

    def see(self, rejected: Rejected) -> None:
        """Take a refused frame as evidence, if it was refused for a number."""
        source = rejected.source
        if rejected.reason != BadNumber.reason or not isinstance(source, Session):
            return
        market = (source.adapter.venue, source.market)
        if not self._may_probe(market):
            return
        symbols = self._table.symbols(*market)
        buffer, found = ColumnBuffer(), ColumnDigits()
        buffer.begin(_NOBODY, b"")
        try:
            # An adapter of its own: the connection's has state that follows its frames.
            type(source.adapter)(source.market, symbols).decode(
                rejected.payload, rejected.ts_recv, buffer
            )
            found.take(buffer.take_out())
        except Exception:  # noqa: BLE001  # evidence only: the frame was refused already
            return
        exponents = self._table.price_exponents, self._table.size_exponents
        for number in found.numbers:
            for digits, evidence, known in zip(
                found.of(number), (self._prices, self._sizes), exponents, strict=True
            ):
                self._take(number, digits, evidence, int(known[number]), rejected.detail)

    def widen(self, fresh: Instrument) -> Instrument:
        """Return an instrument of a fresh list, widened where the evidence says so."""
        key = (fresh.venue, fresh.market, fresh.symbol)
        number = self._table.symbols(fresh.venue, fresh.market).get(fresh.symbol)
        if number is None:
            return fresh
        now = self._table[number]
        before = self._widened.get(key)
        if before and (before.tick_size, before.lot_size) != (fresh.tick_size, fresh.lot_size):
            del self._widened[key]  # the venue's list speaks again
            before = None
        price = before.price_exponent if before else 0
        size = before.size_exponent if before else 0
        if now.tick_size == fresh.tick_size and key in self._prices:
            price = max(price, self._prices.pop(key).exponent())
        if now.lot_size == fresh.lot_size and key in self._sizes:
            size = max(size, self._sizes.pop(key).exponent())
        price, size = max(price, fresh.price_exponent), max(size, fresh.size_exponent)
        if (price, size) == (fresh.price_exponent, fresh.size_exponent):
            return fresh
        self._widened[key] = _Widened(fresh.tick_size, fresh.lot_size, price, size)
        return replace(fresh, price_exponent=price, size_exponent=size)

    def _may_probe(self, market: tuple[str, str]) -> bool:
        now_s = self._clock_s()
        since_s, count = self._probes.get(market, (now_s, 0))
        if now_s - since_s >= INTERVAL_S:
            since_s, count = now_s, 0
        self._probes[market] = (since_s, count + 1)
        return count < PROBES_MAX

    def _take(
        self, number: int, seen: Digits, evidence: dict[Key, _Evidence], exponent: int, text: str
    ) -> None:
        """Take digits of an instrument as evidence.

        Args:
            number: Of the instrument.
            seen: The digits of one of its columns.
            evidence: That of all instruments.
            exponent: The decimals that the instrument has now.
            text: The number that was refused.
        """
        if seen.needed <= exponent:
            return
        instrument = self._table[number]
        key = (instrument.venue, instrument.market, instrument.symbol)
        found = evidence.setdefault(key, _Evidence())
        found.whole = max(found.whole, seen.whole)
        if len(found.decimals) < TEXTS_MAX:
            found.decimals[text] = max(seen.printed, found.decimals.get(text, 0))
