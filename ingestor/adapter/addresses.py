"""Tell what an address is of: which market of a venue."""

from __future__ import annotations

from urllib.parse import urlsplit

from ingestor.adapter.contract import FeedAdapter


def markets_at(adapter: type[FeedAdapter], url: str) -> list[str]:
    """Return the markets whose websocket or REST host an address has, in the venue's order.

    Where several share the host, those of the same path, if there are any. Empty for the address
    of another venue, of a proxy, or of nobody.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        return []
    found: dict[str, list[str]] = {}
    for name, market in adapter.markets.items():
        for own in (*(endpoint.url for endpoint in market.endpoints), market.rest_url):
            if parts.hostname in {urlsplit(own).hostname, *market.other_hosts}:
                found.setdefault(name, []).append(urlsplit(own).path.rstrip("/"))
    path = parts.path.rstrip("/")
    exact = [name for name, paths in found.items() if path in paths]
    return exact or list(found)
