"""Suggests the nearest known word for one that is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint: the known word that was probably meant, else all of them."""
    choices = sorted(known)
    by_case = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), by_case, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_case[close[0]]}?"
    if len(choices) > _LISTED_MAX:
        return f"known are {', '.join(choices[:_LISTED_MAX])}, ..."
    return f"known are {', '.join(choices)}" if choices else "none is known"


_LISTED_MAX: Final = 12
