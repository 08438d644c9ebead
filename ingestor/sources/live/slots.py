"""The connections that the process keeps, and where each stream of an instrument is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ingestor.adapter.contract import Subscription
from ingestor.sources.live.connection import Connection, ConnectionSlot
from ingestor.sources.live.plan import PlannedConnection


class ConnectionSlots:
    """All slots, in the order of their numbers; streams are found by instrument and channel."""

    def __init__(self, planned: Iterable[PlannedConnection]) -> None:
        self._by_number: dict[int, ConnectionSlot] = {}
        self._of_stream: dict[tuple[int, str], list[ConnectionSlot]] = {}
        for connection in planned:
            self.add(connection)

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[ConnectionSlot]:
        return iter(self._by_number.values())

    def add(self, planned: PlannedConnection, *, is_new: bool = False) -> ConnectionSlot:
        """Make a slot for a connection. is_new: it comes to a plan that is running already."""
        slot = self._by_number[planned.number] = ConnectionSlot(planned, is_new=is_new)
        self._index(slot)
        return slot

    def remove(self, number: int) -> ConnectionSlot | None:
        """Take a slot out, by its connection's number in the plan."""
        slot = self._by_number.pop(number, None)
        if slot is not None:
            self._forget(slot)
        return slot

    def change(self, planned: PlannedConnection) -> ConnectionSlot | None:
        """Let a slot carry other streams; return it."""
        slot = self._by_number.get(planned.number)
        if slot is not None:
            self._forget(slot)
            slot.planned = planned
            self._index(slot)
        return slot

    def connection_of(self, instrument: int, channel: str) -> Connection | None:
        """Return the open connection that carries a channel of an instrument."""
        slots = self.slots_of(instrument, channel)
        return next((slot.connection for slot in slots if slot.connection is not None), None)

    def slots_of(self, instrument: int, channel: str) -> list[ConnectionSlot]:
        """Return the slots that carry a channel of an instrument: one for each line."""
        return self._of_stream.get((instrument, channel), [])

    def other_lines(self, planned: PlannedConnection) -> list[Connection]:
        """Return the open connections that carry some of the same streams on another line."""
        if planned.route.lines == 1:
            return []
        slots = {
            slot.planned.number: slot
            for subscription in planned.subscriptions
            for slot in self.slots_of(subscription.instrument, subscription.channel)
            if slot.planned.line != planned.line
        }
        return [slot.connection for slot in slots.values() if slot.connection is not None]

    def stream_of(
        self, instrument: int, channel: str
    ) -> tuple[PlannedConnection, Subscription] | None:
        """Return the planned connection and subscription of a channel of an instrument."""
        slots = self.slots_of(instrument, channel)
        if not slots:
            return None
        wanted = (instrument, channel)
        planned = next((slot for slot in slots if slot.connection is not None), slots[0]).planned
        return planned, next(
            subscription
            for subscription in planned.subscriptions
            if (subscription.instrument, subscription.channel) == wanted
        )

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        for slot in self:
            renumbered = slot.planned.renumbered(numbers)
            if renumbered is not slot.planned:
                self.change(renumbered)

    def _index(self, slot: ConnectionSlot) -> None:
        for subscription in slot.planned.subscriptions:
            self._of_stream.setdefault((subscription.instrument, subscription.channel), []).append(
                slot
            )

    def _forget(self, slot: ConnectionSlot) -> None:
        for subscription in slot.planned.subscriptions:
            left = [
                held
                for held in self.slots_of(subscription.instrument, subscription.channel)
                if held is not slot
            ]
            if left:
                self._of_stream[subscription.instrument, subscription.channel] = left
            else:
                self._of_stream.pop((subscription.instrument, subscription.channel), None)
