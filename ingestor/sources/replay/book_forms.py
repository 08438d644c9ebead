"""Which form of book each connection of a foreign recording has.

Its requests and acknowledgments say it, else its messages, else how many levels its images have.
Of several forms on one connection the venue's first counts, else the one that came first: messages
of the others are left out, since two depths in one book contradict each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ingestor.adapter import (
    OTHER_BOOK,
    Ack,
    BookOffer,
    Control,
    FeedAdapter,
    NamesStreams,
    ReadsRequests,
)
from ingestor.adapter.book_offers import choose, offer_named
from ingestor.recording.format import Connection


class BookForms:
    """Follow the form of each connection's books. offers: the form of each connection that named
    it.
    """

    def __init__(self, adapter: type[FeedAdapter], market: str) -> None:
        self.offers: dict[Connection, BookOffer] = {}
        self._adapter = adapter
        self._market = market
        self._offered = adapter.markets[market].books
        self._seen: set[Connection] = set()  # that brought a book
        self._levels: dict[Connection, int] = {}  # a side, of the largest image

    def asked(self, connection: Connection, adapter: FeedAdapter, payload: bytes) -> None:
        """Take a message of the client.

        Args:
            connection: Who sent it.
            adapter: The venue's adapter.
            payload: The message's bytes.
        """
        if isinstance(adapter, ReadsRequests) and self._offered:
            with suppress(Exception):  # it is no request for streams
                self._named(connection, adapter, adapter.streams_asked(payload))

    def answered(
        self, connection: Connection, adapter: FeedAdapter, payload: bytes, control: Control | None
    ) -> bool:
        """Take a frame of the venue.

        Args:
            connection: Who received it.
            adapter: The venue's adapter.
            payload: The frame's bytes.
            control: The result of decoding it.

        Returns:
            True if it should be decoded again, in another form.
        """
        if isinstance(control, Ack):
            self._named(connection, adapter, control.streams)
        elif control is OTHER_BOOK and connection not in self._seen | self.offers.keys():
            if isinstance(adapter, NamesStreams):
                self._named(connection, adapter, adapter.streams_of(payload))
            return connection in self.offers
        return False

    def is_settled(self, connection: Connection) -> bool:
        """Return True if no frame can change the form of a connection's books any more."""
        return not self._offered or connection in self._seen

    def is_plain(self, connection: Connection) -> bool:
        """Return True if only the adapter reads a connection's books."""
        offer = self.offers.get(connection)
        return offer is not None and offer.is_plain

    def book(self, connection: Connection, image_levels: int) -> None:
        """Take note that a frame brought a book. image_levels: a side; 0 = it was no image."""
        self._seen.add(connection)
        if image_levels > self._levels.get(connection, 0):
            self._levels[connection] = image_levels

    def finish(self) -> dict[Connection, BookOffer]:
        """Return the forms of all connections but those that have the venue's first."""
        if self._adapter.markets[self._market].book.depth_max is not None:
            offered = sorted(self._offered, key=lambda offer: offer.depth)
            for connection, levels in self._levels.items():
                fitting = next((offer for offer in offered if offer.depth >= levels), None)
                if fitting is not None and levels > self._offered[0].depth:
                    self.offers.setdefault(connection, fitting)
        return self.offers

    def _named(self, connection: Connection, adapter: FeedAdapter, streams: Sequence[str]) -> None:
        offer = offer_named(self._adapter, self._market, streams)
        if offer is None or (connection in self.offers and offer is not self._offered[0]):
            return
        self.offers[connection] = offer
        choose(adapter, offer)
