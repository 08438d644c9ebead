"""Print each class of rows of each market for `ingestor feeds`: as a text, JSON, or a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final

from ingestor.adapter import Audited, BookRule, Continuity, FeedAdapter, HasTradeHistory, Market
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.sources.registry import adapter_of, registry

Described = dict[str, Any]

_READ: Final = re.compile(r"(?:, )?read (\d{4}-\d{2}-\d{2})$")
_SYMBOL: Final = "SYMBOL"
_NUMBERS: Final = {
    Continuity.RANGE: "number range",
    Continuity.PREVIOUS: "previous number",
    Continuity.INCREMENT: "dense number",
    Continuity.CONNECTION: "numbers of the connection",
}


def describe_feeds(venue: str | None) -> list[Described]:
    """Return every class of rows of every market of one venue, or of all.

    Raises ConfigError for an unknown venue.
    """
    adapters: Mapping[str, type[FeedAdapter]] = (
        registry().load_all() if venue is None else {venue: adapter_of(venue)}
    )
    return [
        described
        for name, adapter in adapters.items()
        for market_name, market in adapter.markets.items()
        for described in _market(name, adapter, market_name, market)
    ]


def _market(
    venue: str, adapter: type[FeedAdapter], name: str, market: Market
) -> Iterable[Described]:
    one = adapter(name, {_SYMBOL: 0})
    carried = {channel for place in market.endpoints for channel in place.channels}
    reference, read = _reference(adapter.reference)
    for row_class in ROW_CLASSES:
        if row_class.channel not in carried:
            continue
        yield {
            "venue": venue,
            "market": name,
            "class": row_class.channel,
            "channel": _stream(one, row_class.channel),
            "urls": [
                endpoint.url
                for endpoint in market.endpoints
                if row_class.channel in endpoint.channels
            ],
            "book_proof": book_proof(market.book, one),
            "limits": asdict(market.limits),
            "book": market.book.continuity.value,
            "books": [
                {"depth": book.depth, "speed_ms": book.speed_ms}
                for book in market.books
                if not book.is_recorded
            ],
            "snapshot": market.book.snapshot.value,
            "trade_history": isinstance(one, HasTradeHistory),
            "reference": reference,
            "read": read,
            "recorded": market.recorded,
        }


def _reference(text: str) -> tuple[str, str]:
    """Return the name of a document, and the day on which it was read."""
    found = _READ.search(text)
    return (text[: found.start()], found[1]) if found else (text, "")


def _stream(adapter: FeedAdapter, channel: str) -> str:
    """Return the venue's name of a stream of an example symbol."""
    try:
        return adapter.stream(channel, _SYMBOL)
    except Exception:  # noqa: BLE001  # of a third party's adapter that wants a real symbol
        return channel


def book_proof(rule: BookRule, adapter: FeedAdapter) -> list[str]:
    """Return what finds a lost update of a book, the strongest first; empty where nothing does."""
    proofs = ["checksum"] if rule.has_checksum else []
    if rule.continuity in _NUMBERS:
        proofs.append(_NUMBERS[rule.continuity])
    if rule.verify_with_quotes:
        proofs.append("quotes")
    if rule.images_only:
        proofs.append("each message is the whole book")
    if isinstance(adapter, Audited):
        proofs.append("REST image")
    return proofs


def _by_market(found: list[Described]) -> Iterable[tuple[tuple[str, str], list[Described]]]:
    for key, group in groupby(found, lambda one: (str(one["venue"]), str(one["market"]))):
        yield key, list(group)


def feeds_text(found: list[Described]) -> str:
    """Return a line per market."""
    rows = [("venue", "market", "channels", "streams/connection", "connects/s", "book by")]
    rows += [
        (
            venue,
            market,
            ",".join(item["class"] for item in classes),
            str(classes[0]["limits"]["streams_per_connection"]),
            f"{classes[0]['limits']['connects_per_s']:g}",
            f"{classes[0]['book']} ({classes[0]['snapshot']} snapshot)",
        )
        for (venue, market), classes in _by_market(found)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def venues_page(found: list[Described]) -> str:
    """Return docs/venues.md."""
    lines = [
        "# Venues",
        "",
        "Written by `ingestor feeds --markdown > docs/venues.md`; `ingestor feeds --json` has",
        "the same with all limits. **Never seen live** means that the feed was written from the",
        "venue's documents, and that no recorded traffic was replayed through it.",
        "",
        "| venue | market | classes | what proves a book | document, read on | recorded traffic |",
        "|---|---|---|---|---|---|",
    ]
    for (venue, market), classes in _by_market(found):
        first = classes[0]
        cells = [
            venue,
            market,
            ", ".join(f"`{item['class']}`" for item in classes),
            ", ".join(first["book_proof"]) or "nothing",
            f"{first['reference']}, {first['read']}",
            first["recorded"] or "never seen live",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## Streams",
        "",
        "| venue | market | class | the venue's stream |",
        "|---|---|---|---|",
    ]
    for item in found:
        stream = str(item["channel"]).replace("|", "\\|")
        lines.append(f"| {item['venue']} | {item['market']} | `{item['class']}` | `{stream}` |")
    return "\n".join(lines) + "\n"
