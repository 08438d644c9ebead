"""Read recordings for the emulator: one pass to know what is there, one to play it.

`survey` reads everything once and returns a `Recording` for each venue and market it finds; its
`frames` reads again, bounded in memory. Recordings of others don't say whose they are: the name in
their header, an address or the shape of the first frame tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ingestor.model.errors import MALFORMED, ConfigError
from ingestor.recording.format import Connect, Connection, Header, Http, Line, Recv
from ingestor.recording.reader import Problems, SegmentChain, chain_lines, find_chains, merge
from ingestor.testbed.emulator.registry import venue_names, venue_of
from ingestor.testbed.emulator.venue import Change, PastTrade, Print, Venue, parse

Key = tuple[str, str]  # venue, market; "" where all markets come on one connection

_UNREADABLE: Final = (msgspec.DecodeError, *MALFORMED)


@dataclass(slots=True)
class Frame:
    """A recorded frame that is data. streams: whose; changes: what it does to books; trades: what
    it reports.
    """

    ts_ns: int
    payload: bytes
    streams: tuple[str, ...]
    changes: list[Change]
    trades: list[PastTrade] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RestAnswer:
    path: str
    query: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Digits:
    """Decimals seen in an instrument's prices and sizes."""

    price: int = 0
    size: int = 0


@dataclass(slots=True)
class Recording:
    """One venue and market of some recordings.

    streams: data frames of each. digits: by symbol. instruments: as `Instrument.to_json`, by
    symbol, where the recorder was ours. answers: REST, in order. depths: of books, by stream, where
    a frame says them and the name doesn't.
    """

    exchange: Venue
    market: str
    chains: list[SegmentChain]
    streams: Counter[str] = field(default_factory=Counter)
    digits: dict[str, Digits] = field(default_factory=dict)
    instruments: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: list[RestAnswer] = field(default_factory=list)
    depths: dict[str, int] = field(default_factory=dict)

    @property
    def venue(self) -> str:
        return self.exchange.name

    @property
    def key(self) -> Key:
        return self.venue, self.market

    @property
    def symbols(self) -> list[str]:
        found = {self.exchange.channel(stream)[0]: None for stream in self.streams}
        return [symbol for symbol in found if symbol]

    def frames(self) -> Iterator[Frame]:
        """Read the data frames again, in order."""
        for key, line in _keyed_lines(self.chains, Problems()):
            if key == self.key and isinstance(line, Recv):
                frame = self.frame(line)
                if frame is not None:
                    yield frame

    def frame(self, line: Recv) -> Frame | None:
        """Classify a frame; None when it is no data, or nothing says whose it is.

        Where only its book levels can't be read it is played all the same.
        """
        payload = line.payload
        message = _parsed(payload)
        try:
            streams = tuple(self.exchange.streams(message))
        except _UNREADABLE:
            return None
        try:
            changes = list(self.exchange.changes(message))
        except _UNREADABLE:
            changes = []
        try:
            trades = list(self.exchange.trades(message))
        except _UNREADABLE:
            trades = []
        return Frame(line.ts_ns, payload, streams, changes, trades) if streams else None

    def note(self, line: Line) -> None:
        """Take a line into account."""
        match line:
            case Recv():
                self._note_frame(line)
            case Http(url=url):
                parts = urlsplit(url)
                query = dict(parse_qsl(parts.query))
                self.answers.append(RestAnswer(parts.path, query, line.payload))
            case Header(instruments=instruments) | Connect(instruments=instruments):
                for instrument in instruments:
                    if instrument.get("market") == self.market or not self.market:
                        self.instruments[instrument["symbol"]] = instrument

    def _note_frame(self, line: Recv) -> None:
        frame = self.frame(line)
        if frame is None:
            with suppress(*_UNREADABLE):
                self.depths.update(self.exchange.depths(_parsed(line.payload)))
            return
        self.streams.update(frame.streams)
        try:
            prints = list(self.exchange.prints(_parsed(frame.payload)))
        except _UNREADABLE:
            return
        self.note_digits(prints)

    def note_digits(self, prints: Iterable[Print]) -> None:
        """Learn the decimals of instruments from prices and sizes that the venue sent."""
        pads = self.exchange.pads_digits
        for symbol, price, size in prints:
            digits = self.digits.setdefault(symbol, Digits())
            digits.price = max(digits.price, _decimals(price, strip=pads))
            digits.size = max(digits.size, _decimals(size, strip=pads))


def _parsed(payload: bytes) -> Any:
    """Return what a frame's JSON says, None where it is no JSON."""
    try:
        return parse(payload)
    except msgspec.DecodeError:
        return None


def _decimals(text: str, *, strip: bool) -> int:
    if "e" in text.lower():
        exponent = Decimal(text).as_tuple().exponent
        return max(0, -exponent) if isinstance(exponent, int) else 0
    fraction = text.partition(".")[2]
    return len(fraction.rstrip("0") if strip else fraction)


def survey(paths: Iterable[Path], is_over: Callable[[], bool] = lambda: False) -> list[Recording]:
    """Read recordings once and tell what each venue and market in them is.

    Args:
        paths: files or folders.
        is_over: whether nobody waits for it any more.

    Raises:
        ConfigError: where there is nothing to play.
    """
    problems = Problems()
    chains = find_chains(paths, problems)
    found: dict[Key, Recording] = {}
    for key, line in _keyed_lines(chains, problems):
        if is_over():
            return []
        recording = found.get(key)
        if recording is None:
            venue, market = key
            recording = found[key] = Recording(venue_of(venue), market, chains)
        recording.note(line)
    playable = [recording for recording in found.values() if recording.streams]
    if not playable:
        reason = str(problems.kept[0]) if problems.kept else "no frames of a known venue"
        raise ConfigError(f"nothing to play: {reason}")
    return playable


def choose(recordings: Sequence[Recording], venue: str | None, market: str | None) -> Recording:
    """Return the recording that is meant.

    Args:
        recordings: All of them.
        venue: Name of the venue, if it was given.
        market: Name of the market, if it was given.

    Raises:
        ConfigError: None is meant, or several.
    """
    fitting = [
        recording
        for recording in recordings
        if venue in {None, recording.venue}
        and (market in {None, recording.market} or not recording.market)
    ]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(":".join(recording.key).rstrip(":") for recording in recordings)
    wanted = ":".join(part or "any" for part in (venue, market))
    problem = "is in none" if not fitting else "is more than one"
    raise ConfigError(f"{wanted} {problem} of the recordings", hint=f"there are {there}")


def _keyed_lines(chains: Sequence[SegmentChain], problems: Problems) -> Iterator[tuple[Key, Line]]:
    """Yield every line with the venue and market it is of; lines of unknown venues are left out."""
    owners: dict[tuple[str, Connection | None], Key] = {}
    foreign = {chain.name: _foreign_key(chain) for chain in chains if chain.is_foreign}
    for chain, _, lines in merge((chain, chain_lines(chain, problems)) for chain in chains):
        fixed = foreign.get(chain.name)
        for line in lines:
            if fixed is not None:
                for key in _foreign_keys(chain, fixed, line, owners):
                    yield key, line
            elif not chain.is_foreign:
                for key in _keys(chain, line, owners):
                    if key[0]:
                        yield key, line


def _keys(
    chain: SegmentChain, line: Line, owners: dict[tuple[str, Connection | None], Key]
) -> Iterable[Key]:
    """Return whom a line of our own format concerns, and learn what connections are."""
    match line:
        case Header(venue=venue):
            for connection in line.connections:
                owners[chain.name, connection.conn] = _own_key(venue, connection.market)
            return {_own_key(venue, instrument["market"]) for instrument in line.instruments}
        case Connect():
            key = _own_key(line.venue or chain.venue, line.market)
            owners[chain.name, line.conn] = key
            return (key,)
        case Http():
            return (_own_key(line.venue or chain.venue, line.market),)
    key = owners.get((chain.name, line.conn), ("", ""))
    return (key,)


def _foreign_keys(
    chain: SegmentChain, fixed: Key, line: Line, owners: dict[tuple[str, Connection | None], Key]
) -> Iterable[Key]:
    """Return whom a line of others concerns: addresses tell. fixed: where they don't."""
    venue = venue_of(fixed[0])
    match line:
        case Connect(url=url):
            market = venue.market_at(url)
            key = fixed if market is None else (venue.name, market)
            owners[chain.name, line.conn] = key
            return (key,)
        case Http(url=url):
            told = [] if venue.shares_connection else venue.markets_at(url)
            return [(venue.name, market) for market in told] or (fixed,)
        case Header():
            return (fixed,)
    return (owners.get((chain.name, line.conn), fixed),)


def _own_key(venue: str, market: str) -> Key:
    return venue, "" if venue_of(venue).shares_connection else market


def _foreign_key(chain: SegmentChain) -> Key | None:
    """Tell whose recording this is; None when nothing in it says so."""
    venues = [venue_of(name) for name in venue_names()]
    name = chain.venue.upper()
    for venue in venues:
        if name in venue.recording_names:
            return venue.name, venue.recording_names[name]
    for _, lines in chain_lines(chain, Problems()):
        for line in lines:
            for venue in venues:
                market = _foreign_market(venue, line)
                if market is not None:
                    return venue.name, market
    return None


def _foreign_market(venue: Venue, line: Line) -> str | None:
    """Return the market of a venue that a line comes from; None when it doesn't say so."""
    match line:
        case Connect(url=url):
            return venue.market_at(url)
        case Recv(payload=payload):
            return venue.market_of_frame(_parsed(payload))
    return None
