"""The emulator's REST side: recorded answers, instrument lists inferred, books at the position.

An answer is the recorded one where there is one. An instrument list that was not recorded is made
of what the recorder knew of its instruments, else of the digits of the frames. An order book, where
the venue gives it by REST, is the recorded answer until playback has passed it, then the book at
this position.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import orjson

from ingestor.testbed.emulator.playback import Recording, RestAnswer
from ingestor.testbed.emulator.venue import (
    Book,
    BookRequest,
    Change,
    Listed,
    PastTrade,
    RestReply,
    Venue,
)

Snapshots = Literal["position", "recorded"]

# Query values that make two requests of one path different questions.
_TELLING: Final = ("category", "instType", "uly", "symbol", "pair", "cursor")
_MISSING: Final = RestReply(HTTPStatus.NOT_FOUND, b'{"error":"not found"}')
_PAST_TRADES_MAX: Final = 100_000  # of a symbol
_QUOTES: Final = (
    *("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "GBP", "TRY", "BTC", "ETH", "BNB"),
)


@dataclass(slots=True)
class _RestBook:
    """One symbol's book as a request gets it: recorded until passed, then as played."""

    venue: Venue
    symbol: str
    recorded: list[tuple[int, bytes]] = field(default_factory=list)  # by update number
    book: Book | None = None
    waiting: list[Change] = field(default_factory=list)  # played before the recorded snapshot

    def apply(self, change: Change) -> None:
        if self.book is not None:
            self.book.apply(change)
            return
        self.waiting.append(change)
        passed = [body for number, body in self.recorded if number <= change.number]
        if passed or not self.recorded:
            self._seed(self.venue.read_book(change.symbol, passed[-1]) if passed else None)

    def _seed(self, recorded: Change | None) -> None:
        self.book = book = Book()
        if recorded is not None:
            book.apply(recorded)
        for change in self.waiting:
            if recorded is None or change.number > recorded.number:
                book.apply(change)
        self.waiting.clear()

    def answer(self, depth: int, snapshots: Snapshots) -> bytes:
        if self.recorded and (self.book is None or snapshots == "recorded"):
            body = self.recorded[0][1]
            image = self.venue.read_book(self.symbol, body)
            if image is None or max(len(image.bids), len(image.asks)) <= depth:
                return body
            book = Book()
            book.apply(image)
            return self.venue.write_book(book, depth)
        return self.venue.write_book(self.book or Book(), depth)


class RestDesk:
    """Answers GET requests for one recording."""

    def __init__(
        self,
        recording: Recording,
        snapshots: Snapshots = "position",
        books: Callable[[], Iterable[Book]] = tuple,
    ) -> None:
        """books: as played, of a venue whose images come on the socket."""
        self._recording = recording
        self._played = books
        self._venue = recording.exchange
        self._snapshots = snapshots
        self._books: dict[str, _RestBook] = {}
        self._answers: list[RestAnswer] = []
        self._past_trades: dict[str, deque[PastTrade]] = {}  # by symbol
        self._sort_answers()

    def _sort_answers(self) -> None:
        recording = self._recording
        for answer in recording.answers:
            request = self._venue.book_request(answer.path, answer.query)
            if request is None:
                self._answers.append(answer)
                continue
            symbol = request.symbol or next(iter(recording.symbols), "")
            image = self._venue.read_book(symbol, answer.body)
            if image is None:  # the venue refused
                continue
            self._book(symbol).recorded.append((image.number, answer.body))
            levels = (*image.bids, *image.asks)
            recording.note_digits((symbol, price, size) for price, size in levels)

    def _book(self, symbol: str) -> _RestBook:
        return self._books.setdefault(symbol, _RestBook(self._venue, symbol))

    def played(self, change: Change) -> None:
        """Take a book change that playback has passed (venues whose snapshots come by REST)."""
        self._book(change.symbol).apply(change)

    def traded(self, trades: Iterable[PastTrade]) -> None:
        """Take trades that playback has passed."""
        for trade in trades:
            if trade.symbol not in self._past_trades:
                self._past_trades[trade.symbol] = deque(maxlen=_PAST_TRADES_MAX)
            self._past_trades[trade.symbol].append(trade)

    def lists(self, symbol: str) -> bool:
        """Return whether a recorded instrument list names the symbol."""
        quoted = f'"{symbol}"'.encode()
        return any(quoted in answer.body for answer in self._answers)

    def answer(self, target: str) -> RestReply:
        """Answer a request. target: its path and query."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        request = self._venue.book_request(parts.path, query)
        if request is not None:
            return self._book_answer(request)
        history = self._venue.history(parts.path, query, self._past_trades)
        if history is not None:
            return RestReply(HTTPStatus.OK, orjson.dumps(history))
        recorded = _closest(self._answers, parts.path, query)
        if recorded is not None:
            return RestReply(HTTPStatus.OK, recorded.body)
        instruments = listed(self._recording)
        found = (
            self._venue.instrument_list(instruments, query, self._recording.market)
            if self._venue.lists_instruments_at(parts.path)
            else self._venue.other_answer(parts.path, query, instruments)
        )
        return _MISSING if found is None else RestReply(HTTPStatus.OK, orjson.dumps(found))

    def _book_answer(self, request: BookRequest) -> RestReply:
        """Return the book at this position; before it begins, and of who has none, a refusal."""
        if request.depth is None:
            return self._venue.refused_book
        if (book := self._books.get(request.symbol)) is not None:
            return RestReply(HTTPStatus.OK, book.answer(request.depth, self._snapshots))
        name = self._venue.rest_symbol
        played = [trade for trade in self._played() if name(trade.symbol) == request.symbol]
        if not played:
            return self._venue.refused_book
        deepest = max(played, key=len)
        return RestReply(HTTPStatus.OK, self._venue.write_book(deepest, request.depth))


def _closest(answers: Iterable[RestAnswer], path: str, query: dict[str, str]) -> RestAnswer | None:
    """Return the last answer to the same question: equal in what tells questions apart."""
    asked = {key: query[key] for key in _TELLING if key in query}
    fitting = [
        answer
        for answer in answers
        if answer.path == path
        and {key: answer.query[key] for key in _TELLING if key in answer.query} == asked
    ]
    return fitting[-1] if fitting else None


def listed(recording: Recording) -> list[Listed]:
    """Return what is known of the recording's instruments."""
    found = []
    for symbol in dict.fromkeys((*recording.instruments, *recording.symbols)):
        known = recording.instruments.get(symbol)
        if known is not None:
            base, quote, tick_size, lot_size = (
                str(known[name]) for name in ("base", "quote", "tick_size", "lot_size")
            )
            found.append(Listed(symbol, base, quote, tick_size, lot_size, known))
        elif symbol in recording.digits:
            digits = recording.digits[symbol]
            base, quote = _split(symbol)
            tick_size, lot_size = _increment(digits.price), _increment(digits.size)
            found.append(Listed(symbol, base, quote, tick_size, lot_size, {}))
    return found


def _increment(decimals: int) -> str:
    return f"0.{'1'.rjust(decimals, '0')}" if decimals else "1"


def _split(symbol: str) -> tuple[str, str]:
    """Take base and quote out of a venue's symbol."""
    for separator in ("/", "-"):
        if separator in symbol:
            base, quote = symbol.split(separator)[:2]
            return base, quote
    plain = symbol.partition("_")[0]
    for quote in _QUOTES:
        if plain.endswith(quote) and plain != quote:
            return plain.removesuffix(quote), quote
    return plain[:-3], plain[-3:]
