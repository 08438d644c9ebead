"""A market's instrument list: read entry by entry, so that an odd entry costs itself alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import orjson

from ingestor.adapter.contract import FeedAdapter, Listing
from ingestor.model.errors import DecodeError, VenueError
from ingestor.model.instruments import Instrument, check_instrument

ENTRIES_MAX: Final = 500_000  # of one answer: an adapter of a third party may yield for ever
_SYMBOL_MAX: Final = 128
_REASON_MAX: Final = 200
_EXCERPT_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that was left out. symbol: "" where not even that can be read; then `reason` quotes
    how the entry begins.
    """

    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class Halted:
    """A listed symbol that doesn't trade now. status: the venue's own word.

    instrument: its metadata, None where they can't be read (yet).
    """

    symbol: str
    status: str
    instrument: Instrument | None


@dataclass(frozen=True, slots=True)
class InstrumentList:
    """Hold a venue's list of one market. All mappings are by the venue's own symbol.

    unreadable: entries that were left out, in order. carried: symbols whose entry can't be read and
    whose metadata are those of an older list. fresh: whether the venue gave it just now.
    """

    venue: str
    market: str
    trading: dict[str, Instrument] = field(default_factory=dict)
    halted: dict[str, Halted] = field(default_factory=dict)
    unreadable: tuple[Unreadable, ...] = ()
    carried: frozenset[str] = frozenset()
    fresh: bool = True

    @property
    def readable(self) -> int:
        """Return how many symbols it lists, trading or not."""
        return len(self.trading) + len(self.halted)

    @property
    def instruments(self) -> list[Instrument]:
        """Those that trade, in the venue's order."""
        return list(self.trading.values())

    def unreadable_symbols(self) -> set[str]:
        """Return the symbols whose entry was left out, where they are known."""
        return {entry.symbol for entry in self.unreadable if entry.symbol}


@dataclass(frozen=True, slots=True)
class ListChange:
    """Describe how a market's list differs from the one before.

    added: trade now and were not listed before. resumed: trade now and were listed before, halted
    or unreadable. changed: metadata before and now, of those that trade. halted: traded before and
    are listed, but don't trade. gone: symbols that were listed before, trading or halted, and are
    not listed any more.
    """

    added: tuple[Instrument, ...] = ()
    resumed: tuple[Instrument, ...] = ()
    changed: tuple[tuple[Instrument, Instrument], ...] = ()
    halted: tuple[Halted, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.added, self.resumed, self.changed, self.halted, self.gone))


def difference(old: InstrumentList, new: InstrumentList) -> ListChange:
    """Compare two lists of one market.

    A symbol whose new entry can't be read is no change; nor is a missing one while there are new
    entries whose symbol can't be read, since it may be among them.
    """
    known = old.halted.keys() | old.unreadable_symbols()
    unreadable = new.unreadable_symbols()
    nameless = any(not entry.symbol for entry in new.unreadable)
    starting = [one for symbol, one in new.trading.items() if symbol not in old.trading]
    ending = [symbol for symbol in old.trading if symbol not in new.trading]
    listed = new.trading.keys() | new.halted.keys() | unreadable
    return ListChange(
        added=tuple(worker for worker in starting if worker.symbol not in known),
        resumed=tuple(worker for worker in starting if worker.symbol in known),
        changed=tuple(
            (before, new.trading[symbol])
            for symbol, before in old.trading.items()
            if symbol in new.trading and before != new.trading[symbol]
        ),
        halted=tuple(new.halted[symbol] for symbol in ending if symbol in new.halted),
        gone=tuple(
            symbol
            for symbol in (*old.trading, *old.halted)
            if symbol not in listed and not nameless
        ),
    )


def carry(old: InstrumentList | None, new: InstrumentList) -> InstrumentList:
    """Return a list in which symbols whose new entry can't be read stay what they were in `old`."""
    if old is None:
        return new
    missing = new.unreadable_symbols() - new.trading.keys() - new.halted.keys()
    kept = keep(new, old, missing)
    return replace(kept, carried=new.carried | (missing & old.trading.keys()))


def keep(new: InstrumentList, old: InstrumentList, symbols: Collection[str]) -> InstrumentList:
    """Return a list in which some symbols that are missing are as in an older one.

    Args:
        new: The list.
        old: The older list.
        symbols: Symbols to keep, trading or halted.
    """
    trading = {symbol: old.trading[symbol] for symbol in symbols if symbol in old.trading}
    halted = {symbol: old.halted[symbol] for symbol in symbols if symbol in old.halted}
    return replace(new, trading=new.trading | trading, halted=new.halted | halted)


def entries_of(adapter: type[FeedAdapter], market: str, body: bytes) -> list[Any]:
    """Return the entries of one answer.

    Args:
        adapter: The venue's adapter.
        market: Name of the market.
        body: Body of the answer.

    Raises:
        VenueError: The answer holds an error of the venue.
        DecodeError: The answer has no list, whatever the adapter raises for it.
    """
    try:
        return list(islice(adapter.instrument_entries(market, body), ENTRIES_MAX))
    except VenueError as failure:
        code, text = _printable(failure.code)[:_SYMBOL_MAX], _printable(failure.text)[:_REASON_MAX]
        raise VenueError(adapter.venue, code, text, temporary=failure.temporary) from None
    except Exception as failure:
        detail = f"instrument list of {market}: {_words(failure)}"
        raise DecodeError(adapter.venue, detail) from failure


def read_entries(adapter: type[FeedAdapter], market: str, entries: Iterable[Any]) -> InstrumentList:
    """Read all entries of a market's list. It never raises for an entry.

    Args:
        adapter: The venue's adapter.
        market: Name of the market.
        entries: Parsed entries.
    """
    trading: dict[str, Instrument] = {}
    halted: dict[str, Halted] = {}
    unreadable: list[Unreadable] = []
    for entry in entries:
        try:
            listing = adapter.listing(market, entry)
            if listing is None:
                continue
            symbol = _checked_symbol(listing)
        except Exception as failure:  # noqa: BLE001  # an adapter may raise anything for an entry
            unreadable.append(Unreadable("", f"{_words(failure)} in {_excerpt(entry)}"))
            continue
        instrument: Instrument | None = None
        reason = ""
        try:
            instrument = _parse(adapter, market, symbol, entry)
        except Exception as failure:  # noqa: BLE001  # as above
            reason = _words(failure)
        if symbol in trading or symbol in halted:
            if instrument != trading.get(symbol):  # equal ones come when pages overlap
                reason = "it is listed twice, and differs: the first one counts"
                unreadable.append(Unreadable(symbol, reason))
        elif not listing.trading:
            halted[symbol] = Halted(symbol, f"{listing.status:.40}", instrument)
        elif instrument is None:
            unreadable.append(Unreadable(symbol, reason))
        else:
            trading[symbol] = instrument
    return InstrumentList(adapter.venue, market, trading, halted, tuple(unreadable))


def read_list(adapter: type[FeedAdapter], market: str, bodies: Sequence[bytes]) -> InstrumentList:
    """Read the answers of a market's requests, pages after each other.

    Args:
        adapter: The venue's adapter.
        market: Name of the market.
        bodies: Bodies of the answers.

    Raises:
        VenueError: An answer holds an error of the venue.
        DecodeError: An answer has no list.
    """
    entries = [entry for body in bodies for entry in entries_of(adapter, market, body)]
    return read_entries(adapter, market, entries)


def _checked_symbol(listing: Listing) -> str:
    symbol: object = listing.symbol  # an adapter of a third party may say anything
    facts: tuple[object, object] = (listing.trading, listing.status)
    if type(symbol) is not str or not symbol.isprintable() or not 0 < len(symbol) <= _SYMBOL_MAX:
        raise ValueError("the symbol is no text")
    if [type(fact) for fact in facts] != [bool, str]:
        raise ValueError(f"{symbol} has no status")
    return symbol


def _parse(adapter: type[FeedAdapter], market: str, symbol: str, entry: object) -> Instrument:
    instrument = check_instrument(adapter.parse_instrument(market, entry))
    if (instrument.venue, instrument.market, instrument.symbol) != (adapter.venue, market, symbol):
        raise ValueError(f"the metadata are those of {instrument.key}")
    return instrument


def _words(failure: Exception) -> str:
    """Return an exception in words, on one printable line."""
    try:
        return _printable(f"{type(failure).__name__}: {failure}")[:_REASON_MAX]
    except Exception:  # noqa: BLE001  # a third party's exception may not even have a text
        return type(failure).__name__


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else "?" for character in " ".join(text.split())
    )


def _excerpt(entry: object) -> str:
    """Return how an entry begins, for people who look for it in the venue's answer."""
    try:
        text = orjson.dumps(entry, default=repr).decode()
    except (TypeError, ValueError, RecursionError):
        text = type(entry).__name__
    return f"{text[:_EXCERPT_MAX]!a}"
