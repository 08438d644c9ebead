"""Requests of a connection: cut to what a venue takes, and known again by their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

_KEPT_MAX: Final = 10_000  # requests without an answer; older ones are forgotten


class Requests:
    """The subscribe requests of one connection, by their numbers."""

    def __init__(self, size: int) -> None:
        """size: the most streams that one request may name."""
        self._size = size
        self._number = 0
        self._asked: dict[str, tuple[str, ...]] = {}

    def parts(
        self, streams: Sequence[str], *, keep: bool = True
    ) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the number of each request and its streams.

        Args:
            streams: what is asked for.
            keep: whether an answer may name the streams of a request by its number.
        """
        for start in range(0, len(streams), self._size):
            part = tuple(streams[start : start + self._size])
            self._number += 1
            if keep:
                self._asked[str(self._number)] = part
                if len(self._asked) > _KEPT_MAX:
                    del self._asked[next(iter(self._asked))]
            yield self._number, part

    def answered(self, number: object) -> tuple[str, ...]:
        """Return the streams of a request, once: an answer to it came. number: as the venue
        repeats it, an integer or its text; empty for one that nobody asked.
        """
        return self._asked.pop(str(number), ()) if isinstance(number, (int, str)) else ()

    def named(self, text: str, separator: str = "") -> tuple[str, ...]:
        """Return the streams of unanswered requests that a text names, once.

        Args:
            text: A refusal's.
            separator: Before the part of a stream's name that counts; "" = all of it counts.
        """
        found = tuple(
            stream
            for part in self._asked.values()
            for stream in part
            if (stream.partition(separator)[2] if separator else stream) in text
        )
        for number, part in list(self._asked.items()):
            left = tuple(stream for stream in part if stream not in found)
            if left:
                self._asked[number] = left
            else:
                del self._asked[number]
        return found
