"""Define the options of a replay and its counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Choose what to replay. Empty sets mean all.

    venue, market: how recordings of others are to be read (ours say it themselves, and so does the
    address of a connection; those of other markets than `market` are left out).
    start_ns, end_ns: rows with start <= ts_recv < end come out; what lies before is replayed
    silently, so that books are warm. symbols: the venue's, canonical ones or keys. channels:
    trades, quotes, book. instruments: file of `Instrument.to_json` objects.
    linger_ns: at a speed, the longest that a row waits for its flush.
    """

    paths: tuple[Path, ...]
    venue: str = ""
    market: str = ""
    start_ns: int | None = None
    end_ns: int | None = None
    venues: frozenset[str] = frozenset()
    symbols: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    instruments: Path | None = None
    flush_rows: int = 1_000
    linger_ns: int = 5_000_000

    @property
    def filters(self) -> bool:
        """Return True if rows may be left out."""
        return bool(self.start_ns or self.end_ns or self.symbols or self.channels)


@dataclass(slots=True)
class ReplayTotals:
    """lines: read, by what they are. late: frames of connections that were never opened. left_out:
    those of markets that aren't wanted.

    origins: symbols by where their instruments came from: recorded, given, inferred.
    """

    lines: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    late: int = 0
    left_out: int = 0
    origins: dict[str, list[str]] = field(default_factory=dict)
