"""Reads Retry-After headers: how long a server wants to be left alone."""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

# The longest time that a venue may hold us off: a larger number is a mistake or a trick, and a
# ban that is real shows again at the next attempt.
RETRY_AFTER_MAX_S: Final = 3_600.0

_SECONDS: Final = re.compile(r"\d+(?:\.\d*)?", re.ASCII)


def retry_after_s(value: str | None, now_s: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most RETRY_AFTER_MAX_S.

    Both forms of RFC 9110 section 10.2.3 are read. A date in the past means 0.

    Args:
        value: the header, None for none.
        now_s: seconds since the epoch, for the form with a date; the wall clock's by default.

    Returns:
        Seconds from 0 to RETRY_AFTER_MAX_S, None without a header and for nonsense.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(text)
        # The asctime form names no zone; all forms mean UTC (RFC 9110 section 5.6.7).
        until_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, LookupError, OSError):
        return None
    wait_s = until_s - (time.time() if now_s is None else now_s)
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)
