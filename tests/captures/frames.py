"""Reads ../shared/captures and finds out what instruments a recording is about."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import zstandard

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import read_list
from ingestor.model.instruments import Instrument, instrument

Numbers = Iterable[tuple[str, Decimal, Decimal]]  # symbol, price, size


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a recording, one a line."""
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file)
        for line in TextIOWrapper(stream, "utf-8"):
            yield json.loads(line)


def inferred(venue: str, market: str, numbers: Numbers) -> list[Instrument]:
    """Return instruments with as many decimals as the recording's prices and sizes show."""
    prices: defaultdict[str, int] = defaultdict(int)
    sizes: defaultdict[str, int] = defaultdict(int)
    for symbol, price, size in numbers:
        prices[symbol] = max(prices[symbol], _decimals(price))
        sizes[symbol] = max(sizes[symbol], _decimals(size))
    return [
        instrument(venue, market, symbol, symbol, symbol, "", f"1e-{tick}", f"1e-{sizes[symbol]}")
        for symbol, tick in prices.items()
    ]


def listed(
    adapter: type[FeedAdapter], market: str, recording: Iterable[dict[str, Any]]
) -> list[Instrument]:
    """Return the instruments of the recording's own REST answers; empty where it has none."""
    paths = [request.path for request in adapter.instrument_requests(market)]
    bodies = [
        line["data"].encode()
        for line in recording
        if line["t"] == "http" and any(path in line["url"] for path in paths)
    ]
    return read_list(adapter, market, bodies).instruments if bodies else []


def _decimals(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(-exponent, 0)
