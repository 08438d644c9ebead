"""Find how many decimals the numbers of a recording have, though one of them may be absurd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Final

CONFIRMED: Final = 3  # distinct numbers that make a count of digits certain
_DIGITS_MAX: Final = 18
_BEYOND_MAX: Final = 4  # digits beyond what is certain that a single number is believed
_MANY: Final = 20  # numbers: with fewer, nothing stands out
_WITH_EXPONENT: Final = re.compile(r"-?\d{1,20}(\.\d{1,20})?[eE][+-]?\d{1,2}")


@dataclass(slots=True)
class Digits:
    """Digits seen in a column of one symbol. printed: decimals, with trailing zeros; needed:
    without; whole: digits before the point.

    One number with far more digits than all others says nothing of the column: what CONFIRMED
    distinct numbers need is certain, and what goes a little beyond it is believed.
    """

    printed: int = 0
    needed: int = 0
    whole: int = 1
    _certain: int = 0
    _printed: int = 0  # of the numbers that need no more than what is certain
    _certain_whole: int = 1
    _finer: dict[str, tuple[int, int]] = field(default_factory=dict)  # text -> needed, printed
    _larger: dict[str, int] = field(default_factory=dict)  # text -> whole
    _few: set[str] = field(default_factory=set)  # distinct numbers, while there are few

    def __post_init__(self) -> None:
        self._certain, self._printed = self.needed, self.printed
        self._certain_whole = self.whole

    def see_all(self, texts: Sequence[object]) -> None:
        """Take numbers."""
        if not self.are_few:
            with suppress(TypeError):  # one of them is no text
                texts = _pattern(*self.usual).findall("\n".join(texts))  # type: ignore[arg-type]
        for text in texts:
            self.see(text)

    def see(self, text: object) -> None:
        if not isinstance(text, str):
            return
        if "e" in text or "E" in text:
            text = _plain(text)
            if not text:
                return
        if len(self._few) < _MANY:
            self._few.add(text)
        before, _, after = text.partition(".")
        printed = len(after)
        if printed <= self._certain and len(before) <= self._certain_whole:
            return  # the usual case: nothing new
        needed = len(after.rstrip("0"))
        if needed > self._certain:
            self._see_finer(text, needed, printed)
        elif printed > self._printed:
            self._printed = printed
        whole = len(before.lstrip("-0"))
        if whole > self._certain_whole:
            self._see_larger(text, whole)
        self.printed = max(self.printed, printed)
        self.needed = max(self.needed, needed)
        self.whole = max(self.whole, whole)

    def _see_finer(self, text: str, needed: int, printed: int) -> None:
        self._finer[text] = (needed, printed)
        if len(self._finer) < CONFIRMED:
            return
        self._certain = sorted(found[0] for found in self._finer.values())[-CONFIRMED]
        for found, (digits, width) in list(self._finer.items()):
            if digits <= self._certain:
                self._printed = max(self._printed, width)
                del self._finer[found]

    def _see_larger(self, text: str, whole: int) -> None:
        self._larger[text] = whole
        if len(self._larger) < CONFIRMED:
            return
        self._certain_whole = sorted(self._larger.values())[-CONFIRMED]
        for found, digits in list(self._larger.items()):
            if digits <= self._certain_whole:
                del self._larger[found]

    @property
    def are_few(self) -> bool:
        """Return True if so few distinct numbers were seen that each of them counts."""
        return len(self._few) < _MANY

    @property
    def usual(self) -> tuple[int, int, int]:
        """Return what numbers that say nothing new have at most: decimals with trailing zeros,
        decimals without them, digits before the point.
        """
        return max(self._printed, self._certain), self._certain, self._certain_whole

    @property
    def exponent(self) -> int:
        """As printed, since a checksum may cover the zeros; fewer where int64 demands it."""
        room = self._room()
        needed = self._needed(self._certain, room)
        reach = self._reach(self._certain, room)
        widths = [width for digits, width in self._finer.values() if digits <= reach]
        return max(needed, min(max([self._printed, *widths]), room))

    def fitted(self, listed: int) -> int:
        """Return an exponent that a list gives, raised to what the numbers need: orders at a finer
        tick than today's may still be there.
        """
        return self._needed(max(listed, self._certain), self._room())

    def _room(self) -> int:
        """Return the decimals that int64 has room for beside the whole digits."""
        reach = self._certain_whole + _BEYOND_MAX
        wholes = [whole for whole in self._larger.values() if whole <= reach or self.are_few]
        return max(_DIGITS_MAX - max([self._certain_whole, *wholes]), 0)

    def _needed(self, certain: int, room: int) -> int:
        reach = self._reach(certain, room)
        return max([certain, *(digits for digits, _ in self._finer.values() if digits <= reach)])

    def _reach(self, certain: int, room: int) -> int:
        if self.are_few:
            return room + 1  # 19 digits may fit, and each of so few numbers counts
        return min(certain + _BEYOND_MAX, room)


@lru_cache(maxsize=1_024)
def _pattern(printed: int, needed: int, whole: int) -> re.Pattern[str]:
    """Return what finds the lines that are no number of so many digits at most."""
    zeros = printed - needed
    return re.compile(rf"(?m)^(?!\d{{1,{whole}}}(?:\.\d{{0,{needed}}}0{{0,{zeros}}})?$).+$")


def _plain(text: str) -> str:
    """Return a number with an exponent without it; "" for what is none, or absurd."""
    return f"{Decimal(text):f}" if _WITH_EXPONENT.fullmatch(text) else ""
