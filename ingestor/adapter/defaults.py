"""What many adapters have in common: a base for those without REST snapshots, and small helpers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, TypeVar

from ingestor.adapter.contract import RestRequest
from ingestor.columns.buffer import ColumnBuffer
from ingestor.model.errors import UnknownMessage

_Entry = TypeVar("_Entry")


class SeededOnSocket:
    """A base for adapters whose books begin with what the socket sends."""

    venue: ClassVar[str]

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        """Return None: nothing is fetched."""
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Refuse what nobody asked for.

        Args:
            symbol: whose snapshot.
            body: the answer.
            ts_recv: ns since the epoch.
            out: takes nothing.
        """
        raise UnknownMessage(self.venue, "books are seeded on the socket")


def chunks(entries: Sequence[_Entry], size: int) -> Iterator[Sequence[_Entry]]:
    """Yield the entries in groups of at most `size`, in order."""
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
