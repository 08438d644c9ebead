"""Weigh instruments by their messages, which owners of shards measure and tell in the claims.

Pure. Each worker writes, for each shard that it publishes, one record: the rate of the shard, and
that of its busiest instruments. `ingestor cluster plan --weights measured` packs by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

PREFIX: Final = b"rates:"
HOT_MAX: Final = 500  # instruments that one record names
_LEAST: Final = 0.01  # a weight is above 0


@dataclass(frozen=True, slots=True)
class ShardRates:
    """Rates of one shard, per second.

    rate: of all its streams together. streams: how many there are. hot: instrument key -> rate, of
    the busiest.
    """

    rate: float
    streams: int
    hot: Mapping[str, float] = field(default_factory=dict)


def rates_of(
    before: Mapping[str, int], now: Mapping[str, int], streams: int, s: float
) -> ShardRates:
    """Return the rates of a shard.

    Args:
        before: rows by instrument key, at the beginning.
        now: the same, at the end. What was not there before is left out: it is new here.
        streams: how many the shard has.
        s: seconds between the two.
    """
    each = {key: max(0, now[key] - before[key]) / s for key in now.keys() & before.keys()}
    hot = sorted(each, key=lambda key: (-each[key], key))[:HOT_MAX]
    return ShardRates(
        round(sum(each.values()), 3), streams, {key: round(each[key], 3) for key in hot}
    )


def rates_key(shard: int) -> bytes:
    """Return the key of a shard's record."""
    return PREFIX + b"%d" % shard


def read_rates(key: bytes, value: bytes | None) -> tuple[int, ShardRates] | None:
    """Return the shard of a record and its rates, None for any other record of the claims."""
    if value is None or not key.startswith(PREFIX):
        return None
    try:
        fields = orjson.loads(value)
        hot = {str(name): float(rate) for name, rate in fields["hot"].items()}
        return int(key[len(PREFIX) :]), ShardRates(
            float(fields["rate"]), int(fields["streams"]), hot
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # of a later version, or somebody else's


def weights_of(found: Iterable[ShardRates]) -> dict[str, float]:
    """Return the weight of each instrument that was told of, in units of the mean stream.

    found: the records of all shards. {} if nothing came at all.
    """
    every = list(found)
    mean = sum(rates.rate for rates in every) / max(1, sum(rates.streams for rates in every))
    if mean <= 0:
        return {}
    return {
        key: max(_LEAST, round(rate / mean, 3))
        for rates in every
        for key, rate in rates.hot.items()
    }
