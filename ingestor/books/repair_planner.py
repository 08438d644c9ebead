"""When a broken book may be repaired, and when it is asked for again. Pure: times are passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingestor.books.book import Book
from ingestor.books.settings import BookSettings
from ingestor.model.backoff import Backoff
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Cause
from ingestor.model.timestamps import SECOND

_NEVER: Final = 2**63 - 1
# Nothing is wrong with these books: no back-off and no share of `repairs_per_s`. The venue's own
# REST limits govern them.
_FIRST: Final = frozenset({None, Cause.DISCONNECT})


@dataclass(slots=True)
class Repair:
    """A book that needs a snapshot: resubscribe its stream, or fetch the REST snapshot.

    cause: None for the first synchronisation. due_ns: not before; rate and back-off are in it.
    wait: the book's `waits_ended` when it was asked for.
    """

    book: Book
    cause: Cause | None
    due_ns: int
    wait: int

    @property
    def instrument(self) -> int:
        """The instrument's number as of now."""
        return self.book.instrument

    @property
    def is_needed(self) -> bool:
        """Return whether the book still waits: a snapshot may have come before this was due."""
        return self.book.waits_ended == self.wait


class RepairPlanner:
    """Asks for snapshots: at once the first time, then backed off exponentially per instrument,
    spread over `repairs_per_s` per venue, and again where none came within the timeout.
    """

    def __init__(self, table: InstrumentTable, settings: BookSettings) -> None:
        self._table = table
        self._settings = settings
        self._backoff = Backoff(settings.repair_backoff_s, settings.repair_backoff_max_s)
        self._waiting: dict[int, Book] = {}  # a snapshot must come until `deadline_ns`
        self._slots: dict[str, int] = {}  # venue -> when its next repair may start
        self._asked: list[Repair] = []
        self._next_deadline_ns = _NEVER

    def take(self) -> list[Repair]:
        """Return what was asked for since the last call."""
        asked, self._asked = self._asked, []
        return asked

    def ask(self, book: Book, cause: Cause | None, now_ns: int, *, again: bool = False) -> None:
        """Ask for a snapshot, unless one is on the way.

        Args:
            book: The book to repair.
            cause: Reason of the repair, None for a first synchronization.
            now_ns: Monotonic time in ns.
            again: Ask even if a snapshot is on the way.
        """
        if book.instrument in self._waiting and not again:
            return
        due_ns = now_ns
        if again or cause not in _FIRST:
            if book.attempts:
                due_ns += int(self._backoff.delay_s(book.attempts - 1, _full_window) * SECOND)
            book.attempts += 1
            venue = self._table[book.instrument].venue
            due_ns = max(due_ns, self._slots.get(venue, 0))
            self._slots[venue] = due_ns + int(SECOND / self._settings.repairs_per_s)
        repairs = book.counters.repairs
        name = cause.name.lower() if cause else "first"
        repairs[name] = repairs.get(name, 0) + 1
        self._asked.append(Repair(book, cause, due_ns, book.waits_ended))
        self.expect(book, cause, due_ns)

    def expect(self, book: Book, cause: Cause | None, from_ns: int) -> None:
        """Wait for a snapshot that must come within the timeout, and ask for it (again) after that.

        Args:
            book: The book to repair.
            cause: Reason of the repair, None for a first synchronization.
            from_ns: Monotonic time in ns at which the timeout begins.
        """
        book.repair_cause = cause
        book.deadline_ns = from_ns + int(self._settings.snapshot_timeout_s * SECOND)
        self._waiting[book.instrument] = book
        self._next_deadline_ns = min(self._next_deadline_ns, book.deadline_ns)

    def move(self, book: Book, instrument: int) -> None:
        """Let a book go on under the number of a new revision of its instrument."""
        is_waiting = self._waiting.pop(book.instrument, None) is not None
        book.instrument = instrument
        if is_waiting:
            self._waiting[instrument] = book

    def done(self, book: Book) -> None:
        """The snapshot came, or nobody waits for it any more."""
        self._waiting.pop(book.instrument, None)
        book.waits_ended += 1

    def ask_again(self, now_ns: int) -> None:
        """Ask again for the snapshots that didn't come in time."""
        if now_ns < self._next_deadline_ns:
            return
        self._next_deadline_ns = _NEVER
        for book in list(self._waiting.values()):
            if book.deadline_ns <= now_ns:
                self.ask(book, book.repair_cause, now_ns, again=True)
            self._next_deadline_ns = min(self._next_deadline_ns, book.deadline_ns)


def _full_window() -> float:
    """In place of a random number: the slots spread repairs, and they need no jitter."""
    return 1.0
