"""Cuts the text of a recording into lines, and refuses text that holds none.

A file that is no recording, or one made to do harm, may hold gigabytes without a line, or lines
that mean nothing. Reading stops where that is certain, so that it costs little memory and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ingestor.model.errors import RecordingError
from ingestor.recording.format import LINE_BYTES_MAX, Line, parse_line, parse_lines

BAD_LINES_MAX: Final = 1_000  # in a row, broken zstd frames among them
BARREN_BYTES_MAX: Final = 64 << 20  # of text without a line; it takes time, no memory


class LineReader:
    """Parses the text of one file as it comes. What can't be read is told and passed over."""

    def __init__(self, path: str, offset: int, on_bad: Callable[[int, str], None]) -> None:
        """Create the line reader.

        Args:
            path: of the file, for errors.
            offset: bytes of plain text before the first.
            on_bad: called with the offset of a line that can't be read, and the reason.
        """
        self._path = path
        self._on_bad = on_bad
        self._offset = offset  # of what waits in `_parts`
        self._parts: list[bytes] = []  # of the line that has not ended
        self._waiting = 0  # bytes of them
        self._is_skipping = False  # that line is too long: it is passed over
        self._since_line = 0  # bytes of text since the last line that could be read
        self._bad = 0  # lines in a row that could not be read

    @property
    def offset(self) -> int:
        """Bytes of plain text that were taken."""
        return self._offset + self._waiting

    @property
    def lines_end(self) -> int:
        """Bytes of plain text up to the end of the last whole line."""
        return self._offset

    def take(self, text: bytes) -> list[Line]:
        """Return the lines that end in the next part of the text.

        Raises RecordingError when the file holds no lines.
        """
        self._since_line += len(text)
        if self._is_skipping:
            text = self._skip(text)
        end = text.rfind(b"\n") + 1
        lines: list[Line] = []
        if end:
            self._parts.append(text[:end])
            whole = b"".join(self._parts)
            self._forget()
            lines = self._parse(whole)
            self._offset += len(whole)
        if end < len(text):
            self._parts.append(text[end:])
            self._waiting += len(text) - end
        if self._waiting > LINE_BYTES_MAX:
            self._on_bad(self._offset, f"a line of more than {LINE_BYTES_MAX:,} bytes")
            self._offset += self._waiting
            self._forget()
            self._is_skipping = True
        if self._since_line > BARREN_BYTES_MAX:
            what = f"{self._since_line:,} bytes hold no line of a recording; the rest is not read"
            raise RecordingError(self._path, self.offset, what)
        return lines

    def _skip(self, text: bytes) -> bytes:
        """Return the text after the line that is too long."""
        end = text.find(b"\n") + 1
        self._is_skipping = not end
        skipped = end or len(text)
        self._offset += skipped
        return text[skipped:]

    def _forget(self) -> None:
        self._parts.clear()
        self._waiting = 0

    def broken(self) -> None:
        """Forget the line that has not ended: a zstd frame breaks off here."""
        self._offset += self._waiting
        self._forget()
        self._is_skipping = False
        self._count_bad()

    def last(self) -> list[Line]:
        """Return the last line where it has no newline; it may be cut."""
        text = b"".join(self._parts)
        self._forget()
        if not text:
            return []
        try:
            return [parse_line(text)]
        except ValueError:
            self._on_bad(self._offset, "the last line is cut")
            return []

    def _parse(self, text: bytes) -> list[Line]:
        try:
            lines = parse_lines(text)
        except ValueError:
            lines = list(self._one_by_one(text))
        if lines:
            self._since_line = self._bad = 0
        return lines

    def _one_by_one(self, text: bytes) -> Iterator[Line]:
        begin = 0
        while begin < len(text):
            end = text.index(b"\n", begin) + 1
            line = text[begin:end]
            if line.strip():
                try:
                    parsed = parse_line(line)
                except ValueError as failure:
                    self._on_bad(self._offset + begin, f"not a line of a recording: {failure}")
                    self._count_bad(begin)
                else:
                    self._bad = 0
                    yield parsed
            begin = end

    def _count_bad(self, at: int = 0) -> None:
        self._bad += 1
        if self._bad > BAD_LINES_MAX:
            what = f"{self._bad:,} lines in a row are none of a recording; the rest is not read"
            raise RecordingError(self._path, self._offset + at, what)
