"""Sequence rules: does an update continue a book, and if not, what is missing?

One function for deltas after deltas, one for the first delta after a REST snapshot. Numbers that a
venue doesn't give are 0. Where neither the book nor the update has one, there is nothing to check;
an update without a number on a book that has one does not continue it.

| rule | continues when | venues |
|---|---|---|
| RANGE | first == last in book + 1 | Binance spot (`U`, `u`) |
| PREVIOUS | previous == last in book | Binance futures (`pu`), OKX (`prevSeqId`) |
| INCREMENT | last == last in book + 1 | Bybit (`u`) |
| NONE, CONNECTION | always; losses are found otherwise | Kraken, Coinbase |

OKX may restart its numbers: then `seqId` is smaller than `prevSeqId`, which still names the update
before. Its keep-alive has `seqId` == `prevSeqId` and no levels. Both continue.
"""

from __future__ import annotations

from enum import Enum

from ingestor.adapter import Continuity
from ingestor.books.book import Update


class DeliveryAction(Enum):
    CONTINUES = "continues"
    COVERED = "covered"  # the book has it already
    MISSING = "missing"  # something lies between


def continues(rule: Continuity, last: int, update: Update) -> DeliveryAction:
    """Judge a delta on a LIVE book. last: the number of the newest update in the book."""
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
            return DeliveryAction.CONTINUES
    if fits or not known:
        return DeliveryAction.CONTINUES
    # Only the very update that the book ends with is taken for a repetition. An older number may be
    # a repetition too, or a venue that restarted its numbers: repairing is right in both cases.
    return DeliveryAction.COVERED if update.last == last else DeliveryAction.MISSING


def bridges(rule: Continuity, seed: int, update: Update) -> DeliveryAction:
    """Judge the first deltas after a REST snapshot. seed: the snapshot's number.

    Binance spot: drop u <= lastUpdateId; the first event must have U <= lastUpdateId + 1 <= u.
    Binance futures: the first event must have U <= lastUpdateId <= u, then each pu must equal the
    u before. An event covers the numbers above its pu, and the numbers are shared by all symbols,
    so the snapshot's may fall between two events of ours: the exact condition is
    pu <= lastUpdateId < u, which accepts whatever the documented one accepts.
    """
    if not (seed or update.last):
        return DeliveryAction.CONTINUES
    if not update.last:
        return DeliveryAction.MISSING  # it can't be told where it belongs
    if update.last <= seed:
        return DeliveryAction.COVERED
    lowest = update.previous if rule is Continuity.PREVIOUS else update.first - 1
    return DeliveryAction.CONTINUES if lowest <= seed else DeliveryAction.MISSING


def missing(rule: Continuity, last: int, update: Update) -> tuple[int, int]:
    """Return the first and the last missing number, (0, 0) where they can't be told."""
    end = {
        Continuity.RANGE: update.first - 1,
        Continuity.PREVIOUS: update.previous,
        Continuity.INCREMENT: update.last - 1,
    }.get(rule, 0)
    return (last + 1, end) if last and end > last else (0, 0)
