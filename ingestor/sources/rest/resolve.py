"""From the names of a configuration to the instruments of a market's list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from ingestor.adapter.instrument_list import Halted, InstrumentList
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Instrument

_WILDCARDS: Final = frozenset("*?[")
_NAMED_MAX: Final = 5  # unknown symbols that one message names
_PAIR_SEPARATORS: Final = re.compile(r"[-/_]")


class WaitReason(StrEnum):
    """Name the reason why a configured symbol doesn't run."""

    NOT_TRADING = "not_trading"
    UNREADABLE = "unreadable"
    UNLISTED = "unlisted"  # the list doesn't have it, but it is old, or not whole
    NO_LIST = "no_list"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A configured symbol or pattern that doesn't run, and why. detail: the venue's own words."""

    venue: str
    market: str
    name: str
    reason: WaitReason
    detail: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """chosen: each instrument once, in the order named. waiting: names that gave none."""

    chosen: list[Instrument]
    waiting: list[Waiting]


def resolve(listed: InstrumentList, wanted: Iterable[str], where: str = "") -> Resolved:
    """Find the instruments that a configuration names.

    A symbol that is listed and doesn't trade, or whose entry can't be read, waits; so does one that
    is not listed, unless the list is fresh and whole: such a name can never be right.

    Args:
        listed: the market's list.
        wanted: canonical symbols, the venue's own, or patterns over canonical symbols (`*-USDT`);
            case doesn't matter.
        where: file and key, for messages.

    Raises:
        ConfigError: for names that can never be right, with the nearest symbols.
    """
    trading = _by_name((instrument.symbol, instrument) for instrument in listed.instruments)
    halted = _by_name((symbol, one.instrument) for symbol, one in listed.halted.items())
    found: dict[str, Instrument] = {}
    waiting: list[Waiting] = []
    unknown: list[str] = []
    for text in wanted:
        name = text.upper()
        symbols = trading.get(name) or _matching(name, listed.instruments)
        if symbols:
            found.update((symbol, listed.trading[symbol]) for symbol in symbols)
            continue
        reason = _why(name, listed, halted)
        if reason is None:
            unknown.append(text)
        else:
            waiting.append(Waiting(listed.venue, listed.market, text, *reason))
    if unknown:
        raise _unknown(unknown, listed, [*trading, *halted], where)
    return Resolved(list(found.values()), waiting)


def is_named(one: Instrument, wanted: Iterable[str]) -> bool:
    """Return True if a configuration's names or patterns include an instrument, as in `resolve`."""
    names = {one.symbol.upper(), one.canonical.upper()}
    return any(text.upper() in names or _matching(text.upper(), [one]) for text in wanted)


def _by_name(entries: Iterable[tuple[str, Instrument | None]]) -> dict[str, list[str]]:
    """Return symbols by their own and their canonical name, in upper case."""
    named: dict[str, list[str]] = {}
    for symbol, instrument in entries:
        names = {symbol.upper()} if instrument is None else {symbol.upper(), instrument.canonical}
        for name in sorted(names):
            named.setdefault(name.upper(), []).append(symbol)
    return named


def _matching(pattern: str, instruments: Iterable[Instrument]) -> list[str]:
    if not _WILDCARDS & set(pattern):
        return []
    return [
        instrument.symbol
        for instrument in instruments
        if fnmatchcase(instrument.canonical.upper(), pattern)
    ]


def _why(
    name: str, listed: InstrumentList, halted: Mapping[str, Sequence[str]]
) -> tuple[WaitReason, str] | None:
    """Return why a name has no instrument that trades; None where it can never be right."""
    known = [
        instrument.instrument
        for instrument in listed.halted.values()
        if instrument.instrument is not None
    ]
    symbols = halted.get(name) or _matching(name, known)
    if symbols:
        states = dict.fromkeys(_state(listed.halted[symbol]) for symbol in symbols[:_NAMED_MAX])
        more = f" and {len(symbols) - _NAMED_MAX} more" if len(symbols) > _NAMED_MAX else ""
        return WaitReason.NOT_TRADING, f"{', '.join(states)}{more}"
    for entry in listed.unreadable:
        if not entry.symbol or _may_be(name, entry.symbol.upper()):
            which = f"{entry.symbol}: " if entry.symbol else "an entry of the list: "
            return WaitReason.UNREADABLE, f"{which}{entry.reason}"
    if not listed.fresh:
        return WaitReason.UNLISTED, "an older list doesn't have it"
    return None


def _state(halted: Halted) -> str:
    return f"{halted.symbol} is {halted.status or 'not trading'!r}"


def _may_be(name: str, symbol: str) -> bool:
    """Say whether a name may mean a symbol whose canonical name is not known."""
    if name == symbol:
        return True
    parts = _PAIR_SEPARATORS.split(name)[:2]  # base and quote of a canonical name
    return len(parts) == 2 and all(parts) and all(part in symbol for part in parts)


def _unknown(
    unknown: Sequence[str], listed: InstrumentList, choices: Sequence[str], where: str
) -> ConfigError:
    names = ", ".join(repr(text) for text in unknown[:_NAMED_MAX])
    more = f" and {len(unknown) - _NAMED_MAX} more" if len(unknown) > _NAMED_MAX else ""
    near = dict.fromkeys(
        close
        for text in unknown[:_NAMED_MAX]
        for close in get_close_matches(text.upper(), choices, n=1, cutoff=0.6)
    )
    if near:
        hint = f"did you mean {', '.join(near)}?"
    else:
        hint = f"it has {listed.readable} symbols, {', '.join(choices[:_NAMED_MAX])} among them"
    what = f"{listed.venue} {listed.market} has no symbol {names}{more}"
    return ConfigError(what, where=where, hint=hint)
