"""Counters of one book, and their sums for a venue."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingestor.model.timestamps import SECOND


@dataclass(slots=True)
class BookCounters:
    """Sums over the books of one (venue, market).

    updates: events applied, snapshots included. verified, mismatched: comparisons with a checksum,
    a quote or a REST image. crossed: events that left a book crossed or held a negative size.
    duplicates: events received twice. added: levels removed by us (the venue's depth limit), each
    one row.
    repairs: asked for, by cause; "first" is a first synchronisation. audits: comparisons with REST
    images, by outcome. invalid_ns: summed over instruments, of the times that are over.
    """

    updates: int = 0
    verified: int = 0
    mismatched: int = 0
    crossed: int = 0
    duplicates: int = 0
    gaps: int = 0
    resets: int = 0
    added: int = 0
    invalid_ns: int = 0
    repairs: dict[str, int] = field(default_factory=dict)
    audits: dict[str, int] = field(default_factory=dict)

    @property
    def unverifiable(self) -> int:
        """Updates that nothing could be compared with (yet)."""
        return max(self.updates - self.verified - self.mismatched, 0)

    def reading(self, books: int, valid: int, held: int, invalid_ns: int) -> BookStatistics:
        """Return a frozen copy, with the numbers that only the books themselves know.

        Args:
            books: Number of books.
            valid: Number of valid books.
            held: Levels that wait for a snapshot.
            invalid_ns: Time in ns that books were invalid, in all.
        """
        return BookStatistics(
            books=books,
            valid=valid,
            held=held,
            updates=self.updates,
            verified=self.verified,
            mismatched=self.mismatched,
            unverifiable=self.unverifiable,
            crossed=self.crossed,
            duplicates=self.duplicates,
            gaps=self.gaps,
            resets=self.resets,
            added=self.added,
            repairs=dict(self.repairs),
            audits=dict(self.audits),
            invalid_s=invalid_ns / SECOND,
        )


@dataclass(frozen=True, slots=True)
class BookStatistics:
    """A reading of one (venue, market). books, valid: instruments heard of, and usable now.
    invalid_s: seconds without a valid book since each was first heard of, summed.
    """

    books: int
    valid: int
    held: int
    updates: int
    verified: int
    mismatched: int
    unverifiable: int
    crossed: int
    duplicates: int
    gaps: int
    resets: int
    added: int
    repairs: dict[str, int]
    audits: dict[str, int]
    invalid_s: float
