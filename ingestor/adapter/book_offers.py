"""Find the form of a connection's books, and make adapters with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ingestor.adapter.contract import BookOffer, FeedAdapter, Market, OffersBooks

_ANY = "?"  # in the place of a symbol


def adapter_with(
    adapter: type[FeedAdapter], market: str, symbols: Mapping[str, int], offer: BookOffer | None
) -> FeedAdapter:
    """Make an adapter with books in a form.

    Args:
        adapter: the venue.
        market: one of its markets.
        symbols: venue symbol -> instrument number, live.
        offer: one of the market's books; None = the first.
    """
    made = adapter(market, symbols)
    choose(made, offer)
    return made


def choose(adapter: FeedAdapter, offer: BookOffer | None) -> None:
    """Let an adapter have books in a form; None = as it has them."""
    if offer is not None and isinstance(adapter, OffersBooks):
        adapter.choose_book(offer)


def offer_named(
    adapter: type[FeedAdapter], market: str, streams: Iterable[str], *, are_books: bool = False
) -> BookOffer | None:
    """Return the form of books that names of streams tell, None where they tell none.

    The market's first form goes before others.

    Args:
        adapter: the venue.
        market: one of its markets.
        streams: as the adapter names them.
        are_books: they are known to be of books; else one that quotes have too is taken for those.
    """
    described: Market | None = adapter.markets.get(market)
    named = list(streams)
    if described is None:
        return None
    for offer in described.books:
        names = adapter_with(adapter, market, {}, offer)
        stream = names.stream("book", _ANY)
        begin, found, end = stream.partition(_ANY)
        # Where quotes are the best levels of any book, its stream is the book's.
        is_book = are_books or described.book.quotes_from_book
        if not found or (not is_book and stream == names.stream("quotes", _ANY)):
            continue
        if any(name.startswith(begin) and name.endswith(end) for name in named):
            return offer
    return None
