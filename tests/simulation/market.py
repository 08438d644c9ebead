"""A simulated market: its book, quotes and trades, what is true of each, and their frames.

Prices are counted in units of 0.0001 and sizes in lots of 0.0001, whatever the tick.
"""

from __future__ import annotations

import time
from random import Random
from typing import Final

import orjson

DECIMALS: Final = 4
BID, ASK = 1, 2
_DEPTH: Final = 8
_MASK: Final = (1 << 61) - 1
Quote = tuple[int, int, int, int]
Changes = dict[int, dict[int, int]]  # sizes by side and price


def fingerprint(side: int, price: int, size: int) -> int:
    """Return a level's part of a book's fingerprint, which is the sum of all parts."""
    return hash((side, price, size)) & _MASK if size else 0


def text(units: int, decimals: int) -> str:
    """Format a number of 0.0001 with so many decimals; what is finer must be 0."""
    whole, rest = divmod(units, 10**DECIMALS)
    digits = f"{rest:0{DECIMALS}}"
    assert not digits[decimals:].strip("0"), (units, decimals)
    return f"{whole}.{digits[:decimals]}" if decimals else str(whole)


class Market:
    """One symbol. books, quotes, trades: what is true, by number."""

    def __init__(self, symbol: str, random: Random) -> None:
        self.symbol = symbol
        self.decimals = 2  # of a price
        self.is_listed = True
        self.is_halted = False
        self.is_said_to_be_halted = False  # by the list of instruments
        self.resumed_s = -float("inf")  # when it last began to move again; the loop's clock
        self.number = random.randrange(1_000)
        self.trade = random.randrange(1_000)
        self.levels: Changes = {BID: {}, ASK: {}}
        self.total = 0
        self.books: dict[int, int] = {}
        self.quotes: dict[int, Quote] = {}
        self.trades: dict[int, tuple[int, int, int]] = {}
        self._random = random
        self._best = random.randrange(100, 90_000) * 1_000  # the best bid, on the grid of any tick
        self._fill()
        self._note()

    @property
    def tick(self) -> int:
        """The price increment, in units."""
        return int(10 ** (DECIMALS - self.decimals))

    def set_decimals(self, decimals: int) -> Changes:
        """Change the tick; return the update that moves the book to the new grid."""
        self.decimals = decimals
        self._best -= self._best % self.tick
        changes: Changes = {BID: {}, ASK: {}}
        for side, levels in self.levels.items():
            gone = [price for price in levels if price % self.tick]
            changes[side] = dict.fromkeys(gone, 0)
        self._uncross(changes)
        self._fill(changes)
        return self._apply(changes)

    def move(self) -> Changes:
        """Change some levels; return the update."""
        random = self._random
        changes: Changes = {BID: {}, ASK: {}}
        if random.random() < 0.3:
            self._best += random.choice((-1, 1)) * self.tick
            self._uncross(changes)
        for _ in range(random.randint(1, 3)):
            side = random.choice((BID, ASK))
            price = self._price(side, random.randrange(_DEPTH))
            held = len(self.levels[side])
            is_gone = price in self.levels[side] and held > 3 and random.random() < 0.4
            changes[side][price] = 0 if is_gone else random.randrange(1, 50_000)
        self._fill(changes)
        return self._apply(changes)

    def print_trade(self) -> tuple[int, int, int]:
        """Let a trade happen; return price, size and side."""
        self.trade += 1
        side = self._random.choice((BID, ASK))
        trade = (self._price(side, 0), self._random.randrange(1, 50_000), side)
        self.trades[self.trade] = trade
        return trade

    @property
    def quote(self) -> Quote:
        bid, ask = max(self.levels[BID]), min(self.levels[ASK])
        return bid, self.levels[BID][bid], ask, self.levels[ASK][ask]

    def _price(self, side: int, place: int) -> int:
        return (
            self._best - place * self.tick if side == BID else self._best + (place + 1) * self.tick
        )

    def _uncross(self, changes: Changes) -> None:
        for price in self.levels[BID]:
            if price > self._best:
                changes[BID][price] = 0
        for price in self.levels[ASK]:
            if price <= self._best:
                changes[ASK][price] = 0

    def _fill(self, changes: Changes | None = None) -> None:
        """Keep the best levels there, and those beyond the depth away."""
        new = {BID: {}, ASK: {}} if changes is None else changes
        for side in (BID, ASK):
            farthest = self._price(side, 2 * _DEPTH)
            for price in self.levels[side]:
                if (price - farthest) * (1 if side == BID else -1) < 0:
                    new[side][price] = 0
            for place in range(_DEPTH if changes is None else 2):
                price = self._price(side, place)
                if not new[side].get(price, self.levels[side].get(price, 0)):
                    new[side][price] = self._random.randrange(1, 50_000)
        if changes is None:
            self._apply(new)

    def _apply(self, changes: Changes) -> Changes:
        for side, levels in changes.items():
            held = self.levels[side]
            for price, size in levels.items():
                before = held.pop(price, 0)
                self.total += fingerprint(side, price, size) - fingerprint(side, price, before)
                if size:
                    held[price] = size
        self.number += 1
        self._note()
        return changes

    def _note(self) -> None:
        self.books[self.number] = self.total

    # What is true

    def has_been(self, number: int, total: int) -> bool:
        """Whether a book with this fingerprint was the market's, after that update."""
        return self.books.get(number) == total

    def is_now(self, number: int, total: int) -> bool:
        """Whether a book is the market's own now."""
        return (number, total) == (self.number, self.total)

    def has_quoted(self, number: int, quote: Quote) -> bool:
        return self.quotes.get(number) == quote

    def skipped_quotes(self, before: int, number: int) -> bool:
        """Whether quotes were sent between two numbers."""
        return any(one in self.quotes for one in range(before + 1, number))

    # Frames

    def _levels(self, side: int, levels: dict[int, int], decimals: int) -> list[list[str]]:
        order = sorted(levels, reverse=side == BID)
        return [[text(price, decimals), text(levels[price], DECIMALS)] for price in order]

    def book_frame(self, changes: Changes) -> bytes:
        return self._frame("book", changes, U=self.number)

    def snapshot_frame(self) -> bytes:
        return self._frame("snapshot", self.levels)

    def _frame(self, channel: str, levels: Changes, **more: int) -> bytes:
        prices = [price for side in levels.values() for price in side]
        decimals = self.decimals
        while any(price % 10 ** (DECIMALS - decimals) for price in prices):
            decimals += 1  # levels of the grid before go once more
        return orjson.dumps(
            {
                "ch": channel,
                "s": self.symbol,
                "t": time.time_ns(),
                **more,
                "u": self.number,
                "b": self._levels(BID, levels[BID], decimals),
                "a": self._levels(ASK, levels[ASK], decimals),
            }
        )

    def quote_frame(self) -> bytes:
        self.quotes[self.number] = quote = self.quote
        bid, bid_size, ask, ask_size = quote
        return orjson.dumps(
            {
                "ch": "quote",
                "s": self.symbol,
                "t": time.time_ns(),
                "u": self.number,
                "b": [text(bid, self.decimals), text(bid_size, DECIMALS)],
                "a": [text(ask, self.decimals), text(ask_size, DECIMALS)],
            }
        )

    def trade_frame(self, trade: tuple[int, int, int]) -> bytes:
        price, size, side = trade
        return orjson.dumps(
            {
                "ch": "trade",
                "s": self.symbol,
                "t": time.time_ns(),
                "i": self.trade,
                "p": text(price, self.decimals),
                "q": text(size, DECIMALS),
                "m": "buy" if side == BID else "sell",
            }
        )

    @property
    def tick_text(self) -> str:
        return text(self.tick, self.decimals)
