"""Know a recorded REST address again: which request of an adapter it is, and of which symbol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from ingestor.adapter import FeedAdapter, HasTradeHistory, LostTrades, RestRequest
from ingestor.adapter.book_offers import adapter_with
from ingestor.model.timestamps import SECOND

# What a request says of both is what it says of a symbol.
_TWO_LOSSES: Final = (
    LostTrades(1, 2, 3 * SECOND, 4 * SECOND),
    LostTrades(50_000, 60_000, 70_000 * SECOND, 80_000 * SECOND),
)


def matches(url: str, request: RestRequest) -> bool:
    """Say whether a recorded address may be a request's: its path, and no query that contradicts.

    A relative address ("/depth") is compared with the end of the path.
    """
    parts = urlsplit(url)
    if parts.netloc:
        if parts.path != request.path:
            return False
    elif not parts.path.strip("/") or not request.path.endswith(parts.path):
        return False
    query = parse_qs(parts.query)
    return all(
        query.get(name, [value]) == [value]
        for name, value in request.query.items()
        if name != "limit"
    )


def snapshot_symbol(adapter: FeedAdapter, url: str) -> str | None:
    """Return whose book snapshot an address asks for; "" when it doesn't say, None when it is no
    such address.
    """
    request = adapter.snapshot_request("?")
    if request is None:
        return None
    if "?" in request.path:
        return _symbol_in_path(request.path, url)
    name = next((name for name, value in request.query.items() if value == "?"), "")
    others = {key: value for key, value in request.query.items() if key != name}
    if not matches(url, RestRequest(request.path, others)):
        return None
    return parse_qs(urlsplit(url).query).get(name, [""])[0]


def readers_of_images(
    adapter: type[FeedAdapter], market: str, symbols: Mapping[str, int]
) -> list[FeedAdapter]:
    """Return adapters that know the requests for images of each form of a market's books.

    Args:
        adapter: The venue.
        market: One of its markets.
        symbols: Venue symbol -> instrument number.
    """
    forms = adapter.markets[market].books or (None,)
    return [adapter_with(adapter, market, symbols, form) for form in forms]


def _symbol_in_path(asked: str, url: str) -> str | None:
    """Return what an address has in the place of "?" in a path; None for another path."""
    begin, _, end = asked.partition("?")
    path = unquote(urlsplit(url).path)
    if not path.startswith(begin) or not path.endswith(end) or len(path) < len(asked):
        return None
    return path[len(begin) : len(path) - len(end)]


def history_symbol(adapter: FeedAdapter, url: str, symbols: Iterable[str]) -> str | None:
    """Return the symbol whose past trades an address asks for, None for another address.

    Args:
        adapter: The venue's adapter.
        url: The address.
        symbols: Symbols to choose from.
    """
    if not isinstance(adapter, HasTradeHistory):
        return None
    parts = urlsplit(url)
    query = {*parse_qsl(parts.query)}
    for symbol in symbols:
        requests = [adapter.history_request(symbol, lost) for lost in _TWO_LOSSES]
        same = [
            {*request.query.items()}
            for request in requests
            if request and request.path == parts.path
        ]
        if len(same) == len(requests) and set.intersection(*same) <= query:
            return symbol
    return None
