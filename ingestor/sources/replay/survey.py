"""The first pass over a recording of others, which does not say what it carries.

Every frame is decoded with every symbol taken as known; what is kept is which symbols and channels
each connection carries, how many digits the numbers have, and the instruments that the recording's
own REST answers list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from ingestor.adapter import FeedAdapter, RestRequest, parse_levels
from ingestor.adapter.instrument_list import read_list
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.narrowing import DEFERRED_WIDTH
from ingestor.columns.sealing import read_deferred
from ingestor.model.errors import DecodeError, IngestError, VenueError
from ingestor.model.instruments import Instrument, InstrumentTable, instrument
from ingestor.model.row_classes import Exponent, RowClass
from ingestor.recording.format import Connection, Http, Recv
from ingestor.recording.reader import Problems, SegmentChain, read_lines

UNREADABLE: Final = (IngestError, LookupError, TypeError, ValueError, AttributeError)
CONFIRMED: Final = 3  # distinct numbers that make a count of decimals certain
_DIGITS_MAX: Final = 18
_BEYOND_MAX: Final = 4  # decimals beyond what is certain that a single number is believed
_MANY: Final = 20  # numbers: with fewer, nothing stands out
_UNREAD_MAX: Final = 2_000  # events whose digits are read together


@dataclass(slots=True)
class Digits:
    """Decimals seen in a column of one symbol. printed: with trailing zeros; whole: before it.

    One number with far more decimals than all others says nothing of the column: what CONFIRMED
    distinct numbers need is certain, and what goes a little beyond it is believed.
    """

    printed: int = 0
    needed: int = 0
    whole: int = 1
    _certain: int = 0
    _printed: int = 0  # of the numbers that need no more than what is certain
    _finer: dict[str, tuple[int, int]] = field(default_factory=dict)  # text -> needed, printed
    _seen: int = 0

    def __post_init__(self) -> None:
        self._certain, self._printed = self.needed, self.printed

    def see(self, text: object) -> None:
        if isinstance(text, str) and "e" not in text and "E" not in text:
            before, _, after = text.partition(".")
            needed, printed = len(after.rstrip("0")), len(after)
            self._seen += 1
            if needed > self._certain:
                self._see_finer(text, needed, printed)
            elif printed > self._printed:
                self._printed = printed
            self.printed = max(self.printed, printed)
            self.needed = max(self.needed, needed)
            self.whole = max(self.whole, len(before.lstrip("-0")))

    def _see_finer(self, text: str, needed: int, printed: int) -> None:
        self._finer[text] = (needed, printed)
        if len(self._finer) < CONFIRMED:
            return
        self._certain = sorted(found[0] for found in self._finer.values())[-CONFIRMED]
        for found, (digits, width) in list(self._finer.items()):
            if digits <= self._certain:
                self._printed = max(self._printed, width)
                del self._finer[found]

    @property
    def exponent(self) -> int:
        """As printed, since a checksum may cover the zeros; fewer where int64 demands it."""
        reach = min(self._certain + _BEYOND_MAX, _DIGITS_MAX - self.whole)
        believed = [
            found for found in self._finer.values() if found[0] <= reach or self._seen < _MANY
        ]
        needed = max([self._certain, *(digits for digits, _ in believed)])
        printed = max([self._printed, *(width for _, width in believed)])
        return max(needed, min(printed, _DIGITS_MAX - self.whole))


class Finder(dict[str, int]):
    """A symbol table that knows every symbol, and keeps which were asked for."""

    def __missing__(self, symbol: str) -> int:
        self[symbol] = len(self)
        return self[symbol]

    def __contains__(self, symbol: object) -> bool:
        return isinstance(symbol, str)

    def get(self, symbol: str, default: Any = None) -> Any:  # knows every symbol
        return self[symbol]


class Probe(ColumnBuffer):
    """A buffer that keeps no rows: only which channels an instrument has, and its digits."""

    def __init__(self) -> None:
        super().__init__()
        self._unread: dict[RowClass, list[Any]] = {}
        self.channels: dict[tuple[int, str], None] = {}
        self.prices: dict[int, Digits] = {}
        self.sizes: dict[int, Digits] = {}

    def _see(self, number: int, channel: str, pairs: Iterable[Sequence[object]]) -> None:
        self.channels[number, channel] = None
        prices = self.prices.setdefault(number, Digits())
        sizes = self.sizes.setdefault(number, Digits())
        for pair in pairs:
            prices.see(pair[0])
            sizes.see(pair[1])

    def levels(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        first: int,
        last: int,
        bids: Sequence[Sequence[object]],
        asks: Sequence[Sequence[object]],
        *_: object,
        **__: object,
    ) -> None:
        self._see(instrument, "book", (*bids, *asks))

    def json_levels(
        self,
        instrument: int,
        ts_event: int,
        ts_recv: int,
        first: int,
        last: int,
        bids: bytes,
        asks: bytes,
        *_: object,
        **__: object,
    ) -> bool:
        self._see(instrument, "book", (*parse_levels(bids), *parse_levels(asks)))
        return True

    def hole(self, *_: object, **__: object) -> None:
        return

    def settle(self) -> None:
        """A frame was decoded: note whose rows it brought. Their digits are read for
        many frames at once."""
        if self.kept_trades:
            self._keep(RowClass.TRADE, self.kept_trades)
            self.kept_trades = []
        if self.kept_quotes:
            self._keep(RowClass.QUOTE, self.kept_quotes)
            self.kept_quotes = []
        for row_class, kept in self.kept_rows.items():
            self._keep(row_class, kept)
        self.kept_rows.clear()

    def _keep(self, row_class: RowClass, kept: list[Any]) -> None:
        for number in kept[2::DEFERRED_WIDTH]:
            self.channels[number, row_class.channel] = None
        unread = self._unread.setdefault(row_class, [])
        unread += kept
        if len(unread) >= _UNREAD_MAX * DEFERRED_WIDTH:
            self.read()

    def read(self) -> None:
        """Read the digits of the rows kept so far, but for book levels."""
        for row_class, kept in self._unread.items():
            if not kept:
                continue
            part, texts, _ = read_deferred(row_class, kept, [])
            width = len(texts) // len(part.rows)
            for row, number in enumerate(part.rows["instrument"].tolist()):
                prices = self.prices.setdefault(number, Digits())
                sizes = self.sizes.setdefault(number, Digits())
                for unit, text in zip(
                    row_class.exponents, texts[row * width : (row + 1) * width], strict=True
                ):
                    if unit is not Exponent.RATE:
                        (prices if unit is Exponent.PRICE else sizes).see(text)
            kept.clear()


@dataclass(slots=True)
class Survey:
    """What the first pass found. subscriptions: (symbol, channel) by connection.

    listed: instruments by (market, symbol), from the recording's own REST answers.
    """

    subscriptions: dict[Connection, list[tuple[str, str]]] = field(default_factory=dict)
    digits: dict[str, tuple[Digits, Digits]] = field(default_factory=dict)
    listed: dict[tuple[str, str], Instrument] = field(default_factory=dict)


def survey(chain: SegmentChain, adapter: type[FeedAdapter], market: str) -> Survey:
    """Read a foreign recording once. Frames that can't be decoded are passed over."""
    found = Survey()
    finder, probe = Finder(), Probe()
    adapters: dict[Connection, FeedAdapter] = {}
    reader = adapter(market, finder)
    for path in chain.files:
        for lines in read_lines(path, Problems()):
            for line in lines:
                if isinstance(line, Http):
                    _list(line, adapter, found)
                    _probe_snapshot(reader, line, probe)
                elif isinstance(line, Recv):
                    one = adapters.get(line.conn)
                    if one is None:
                        one = adapters[line.conn] = adapter(market, finder)
                    _probe(one, line, probe)
                    _subscribe(found, line.conn, finder, probe)
    probe.read()
    names = {number: symbol for symbol, number in finder.items()}
    for number, prices in probe.prices.items():
        found.digits[names[number]] = (prices, probe.sizes[number])
    return found


def _probe(adapter: FeedAdapter, line: Recv, probe: Probe) -> None:
    probe.begin(_NOBODY, b"")
    with suppress(Exception):  # the second pass refuses the frame, and says why
        adapter.decode(line.payload, line.ts_ns, probe)
    probe.settle()


def _probe_snapshot(adapter: FeedAdapter, line: Http, probe: Probe) -> None:
    symbol = snapshot_symbol(adapter, line.url)
    if symbol:
        probe.begin(_NOBODY, b"")
        with suppress(Exception):
            adapter.decode_snapshot(symbol, line.payload, line.ts_ns, probe)
        probe.channels.clear()


def _subscribe(found: Survey, connection: Connection, finder: Finder, probe: Probe) -> None:
    if not probe.channels:
        return
    symbols = list(finder)
    subscriptions = found.subscriptions.setdefault(connection, [])
    for number, channel in probe.channels:
        pair = (symbols[number], channel)
        if pair not in subscriptions:
            subscriptions.append(pair)
    probe.channels.clear()


class _Nobody:
    def instruments(self, row_class: object) -> Sequence[int]:
        return ()

    def count_refused(self, reason: str) -> None:
        return


_NOBODY: Final = _Nobody()


def _list(line: Http, adapter: type[FeedAdapter], found: Survey) -> None:
    for market in adapter.markets:
        if any(matches(line.url, request) for request in adapter.instrument_requests(market)):
            with suppress(VenueError, DecodeError):
                for listed in read_list(adapter, market, [line.payload]).instruments:
                    found.listed[market, listed.symbol] = listed


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
    such address."""
    request = adapter.snapshot_request("?")
    if request is None:
        return None
    name = next((name for name, value in request.query.items() if value == "?"), "")
    others = {key: value for key, value in request.query.items() if key != name}
    if not matches(url, RestRequest(request.path, others)):
        return None
    return parse_qs(urlsplit(url).query).get(name, [""])[0]


def inferred(
    venue: str, market: str, symbol: str, digits: tuple[Digits, Digits] | None
) -> Instrument:
    """Return an instrument of which nothing is known but the digits of its numbers."""
    prices, sizes = digits or (Digits(8), Digits(8))
    tick, lot = (f"0.{'1':0>{one.exponent}}" if one.exponent else "1" for one in (prices, sizes))
    return instrument(venue, market, symbol, symbol, symbol, "", tick, lot)


def add_surveyed(
    found: Survey, venue: str, market: str, table: InstrumentTable
) -> dict[str, list[str]]:
    """Give every symbol of a survey an instrument; return the symbols by where it came from:
    "given" (in the table already), "recorded" (listed in the recording) or "inferred"."""
    origins: dict[str, list[str]] = {"given": [], "recorded": [], "inferred": []}
    symbols = table.symbols(venue, market)
    for symbol, digits in found.digits.items():
        if symbol in symbols:
            origins["given"].append(symbol)
            continue
        listed = found.listed.get((market, symbol)) or next(
            (one for (_, other), one in found.listed.items() if other == symbol), None
        )
        if listed is not None:
            table.add(_fitted(replace(listed, market=market), digits))
            origins["recorded"].append(symbol)
        else:
            table.add(inferred(venue, market, symbol, digits))
            origins["inferred"].append(symbol)
    return origins


def _fitted(one: Instrument, digits: tuple[Digits, Digits]) -> Instrument:
    """Give room for every digit seen: orders at a finer tick than today's may still be there."""
    return replace(
        one,
        price_exponent=max(one.price_exponent, digits[0].needed),
        size_exponent=max(one.size_exponent, digits[1].needed),
    )
