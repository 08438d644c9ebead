"""From the depth and the speed of a configured feed to a form of book that its venue has."""

from __future__ import annotations

from collections.abc import Sequence

from ingestor.adapter import BookOffer, Market
from ingestor.model.errors import ConfigError


def offer_of(
    market: Market, name: str, depth: int | None, speed_ms: int | None, where: str
) -> BookOffer | None:
    """Return the form of books that a feed wants, None where it doesn't say.

    Args:
        market: what the venue offers.
        name: venue and market, for messages.
        depth: levels a side; None = whatever goes with the speed.
        speed_ms: between two updates; None = the venue's first one for the depth.
        where: file and section, for messages.

    Raises:
        ConfigError: for what the venue doesn't have, with what it has and the nearest of it.
    """
    if depth is None and speed_ms is None:
        return None
    offers = tuple(offer for offer in market.books if not offer.is_recorded)
    if not offers:
        what = f"the books of {name} have one depth and one speed"
        raise ConfigError(what, where=where, hint="leave out depth and speed_ms")
    if depth is not None:
        depths = sorted({offer.depth for offer in offers})
        if depth not in depths:
            what = f"{name} has no book of {depth} levels"
            raise ConfigError(what, where=f"{where}.depth", hint=_hint(depth, depths))
        offers = tuple(offer for offer in offers if offer.depth == depth)
    if speed_ms is not None:
        speeds = sorted({offer.speed_ms for offer in offers})
        if speed_ms not in speeds:
            of_depth = "" if depth is None else f" of {depth} levels"
            what = f"{name} has no book{of_depth} every {speed_ms} ms"
            raise ConfigError(what, where=f"{where}.speed_ms", hint=_hint(speed_ms, speeds))
        offers = tuple(offer for offer in offers if offer.speed_ms == speed_ms)
    return offers[0]


def _hint(wanted: int, valid: Sequence[int]) -> str:
    nearest = min(valid, key=lambda one: (abs(one - wanted), one))
    return f"valid are {', '.join(map(str, valid))}; the nearest is {nearest}"
