"""Sequence rules: does an update continue a book, and if not, what is missing?

One function for deltas after deltas, one for the first delta after a REST snapshot. Numbers that a
venue doesn't give are 0. Where neither the book nor the update has one, there is nothing to check;
an update without a number on a book that has one does not continue it.

| rule | continues when |
|---|---|
| RANGE | first == last in book + 1 |
| PREVIOUS | previous == last in book |
| INCREMENT | last == last in book + 1 |
| NONE, CONNECTION | always; losses are found otherwise |

Under PREVIOUS, a venue may restart its numbers: then last is smaller than previous, which still
names the update before. A keep-alive has last == previous and no levels. Both continue.
docs/semantics.md says which venue follows which rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ingestor.adapter import Continuity
from ingestor.books.book import Update


class Continuation(Enum):
    CONTINUES = "continues"
    COVERED = "covered"  # the book has it already
    MISSING = "missing"  # something lies between


def continues(rule: Continuity, last: int, update: Update) -> Continuation:
    """Judge a delta on a LIVE book.

    Args:
        rule: The venue's numbering.
        last: Number of the newest update in the book.
        update: The delta.
    """
    match rule:
        case Continuity.RANGE:
            known = last or update.first
            fits = update.first == last + 1
        case Continuity.PREVIOUS:
            known = last or update.previous
            fits = update.previous == last
        case Continuity.INCREMENT:
            known = last or update.last
            fits = update.last == last + 1
        case _:
            return Continuation.CONTINUES
    if fits or not known:
        return Continuation.CONTINUES
    # Only the very update that the book ends with is taken for a repetition. An older number may be
    # a repetition too, or a venue that restarted its numbers: repairing is right in both cases.
    return Continuation.COVERED if update.last == last else Continuation.MISSING


def bridges(rule: Continuity, seed: int, update: Update) -> Continuation:
    """Judge the first deltas after a REST snapshot.

    RANGE: drop last <= seed; the first event must have first <= seed + 1 <= last.
    PREVIOUS: venues document first <= seed <= last for the first event; each previous must then
    equal the last before. An event covers the numbers above its previous. All symbols share the
    numbers, so the snapshot's may fall between two events of ours. The exact condition is
    previous <= seed < last, which accepts whatever the documented one accepts.

    Args:
        rule: The venue's numbering.
        seed: Number of the snapshot.
        update: The delta.
    """
    if not (seed or update.last):
        return Continuation.CONTINUES
    if not update.last:
        return Continuation.MISSING  # it can't be told where it belongs
    if update.last <= seed:
        return Continuation.COVERED
    if rule is Continuity.NONE:  # its numbers, if any, are times that tell what is older
        return Continuation.CONTINUES
    lowest = update.previous if rule is Continuity.PREVIOUS else update.first - 1
    return Continuation.CONTINUES if lowest <= seed else Continuation.MISSING


def held_verdicts(rule: Continuity, seed: int, held: Sequence[Update]) -> list[Continuation]:
    """Judge updates that were held until a snapshot came.

    Where numbers only order updates (NONE), those above the snapshot's continue it if any is not:
    an older snapshot than all that is held may lack what came between.

    Args:
        rule: of the venue.
        seed: the snapshot's number.
        held: in order.
    """
    verdicts = [bridges(rule, seed, update) for update in held]
    if rule is Continuity.NONE and seed and verdicts[:1] == [Continuation.CONTINUES]:
        verdicts[0] = Continuation.MISSING
    return verdicts


def missing(rule: Continuity, last: int, update: Update) -> tuple[int, int]:
    """Return the first and the last missing number, (0, 0) where they can't be told.

    Args:
        rule: The venue's numbering.
        last: Number of the newest update in the book.
        update: The delta that does not continue it.
    """
    end = {
        Continuity.RANGE: update.first - 1,
        Continuity.PREVIOUS: update.previous,
        Continuity.INCREMENT: update.last - 1,
    }.get(rule, 0)
    return (last + 1, end) if last and end > last else (0, 0)
