"""Sessions that carry the same streams on two lines: what one loses, the other brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ingestor.adapter.contract import Subscription


class Carrier(Protocol):
    """A session. pending, interrupted: streams that the venue has not confirmed."""

    subscriptions: list[Subscription]
    pending: set[str]
    interrupted: set[str]


class Lines:
    """The open sessions of all feeds with two lines. is_used: whether there are any."""

    def __init__(self) -> None:
        self._open: list[Carrier] = []
        self.is_used = False

    def add(self, session: Carrier) -> None:
        """Count a session in, from before its first frame."""
        self._open.append(session)
        self.is_used = True

    def remove(self, session: Carrier) -> None:
        """Count a session out; one that is not in costs nothing."""
        self._open = [item for item in self._open if item is not session]
        self.is_used = bool(self._open)

    def uncovered(
        self, session: Carrier, subscriptions: Iterable[Subscription]
    ) -> list[Subscription]:
        """Return which subscriptions of a session no other one carries now."""
        covered = {
            (subscription.instrument, subscription.channel)
            for other in self._open
            if other is not session
            for subscription in other.subscriptions
            if subscription.stream not in other.pending
            and subscription.stream not in other.interrupted
        }
        return [
            subscription
            for subscription in subscriptions
            if (subscription.instrument, subscription.channel) not in covered
        ]

    def paired(self, size: int) -> NDArray[np.bool_]:
        """Return by instrument number, bool[size], whether it is on such a line."""
        found = np.zeros(size, np.bool_)
        for session in self._open:
            found[[subscription.instrument for subscription in session.subscriptions]] = True
        return found
