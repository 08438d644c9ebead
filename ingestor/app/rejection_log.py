"""Says which frames were refused: each of them, but of messages of an unknown kind the first."""

from __future__ import annotations

import re
from typing import Final

import structlog

from ingestor.columns.sealed import Rejected
from ingestor.decode.session import Session
from ingestor.model.errors import UnknownMessage
from ingestor.pipeline.pipeline import FlushResult

KINDS_MAX: Final = 100  # of unknown messages that are told apart, in all
_KIND_CHARACTERS: Final = 40  # of what is said of a message; what follows is mostly data
_DIGITS: Final = re.compile(r"\d+")

log = structlog.get_logger(__name__)


class RejectionLog:
    """Writes a line for each refused frame.

    A venue may send a message that nobody subscribed to thousands of times a minute:
    `ingestor_messages_rejected_total` counts those.
    """

    def __init__(self) -> None:
        self._kinds: set[tuple[str, str]] = set()

    def observe(self, result: FlushResult, _now_ns: int) -> None:
        """Log the frames that a flush refused."""
        for frame in result.rejected:
            if frame.reason != UnknownMessage.reason or self._is_first(frame):
                log.warning("frame.rejected", reason=frame.reason, detail=frame.detail)

    def _is_first(self, one: Rejected) -> bool:
        venue = one.source.adapter.venue if isinstance(one.source, Session) else ""
        kind = venue, _DIGITS.sub("#", one.detail)[:_KIND_CHARACTERS]
        if kind in self._kinds or len(self._kinds) >= KINDS_MAX:
            return False
        self._kinds.add(kind)
        return True
