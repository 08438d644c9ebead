"""Write lines to standard output and standard error without ever waiting for their reader.

A reader may go away, or stop to read, and a disk under a log may be full. None of that may hold
the event loop or end the process: lines go through a bounded queue to a thread, which drops and
counts what can't be written.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import BinaryIO, Final, TextIO

LINES_MAX: Final = 10_000
BYTES_MAX: Final = 4 << 20
STALLED_S: Final = 1.0  # a reader that took nothing for so long is not waited for at the end
CLOSE_S: Final = 10.0  # nor one that takes longer than this, however slowly it reads
_POLL_MS: Final = 100

# Characters that a terminal obeys or that look like the end of a line: C0, DEL and C1 controls,
# line and paragraph separators, directions of writing (Unicode TR 36 section 2.5), surrogates.
_UNPRINTABLE: Final = (
    *range(0x20),
    *range(0x7F, 0xA0),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
)
_ESCAPED_JSON: Final = {code: f"\\u{code:04x}" for code in _UNPRINTABLE}
_ESCAPED: Final = {code: ascii(chr(code))[1:-1] for code in _UNPRINTABLE}


def printable(text: str) -> str:
    """Return a text of one line that no terminal obeys: what is not printable is escaped."""
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPED)


def printable_json(text: str) -> str:
    """Return a JSON text of one line with the same content that no terminal obeys."""
    return text.translate(_ESCAPED_JSON)


class LineWriter:
    """A file-like object whose `write` never waits, never fails, and may be called anywhere."""

    def __init__(
        self, descriptor: int, lines_max: int = LINES_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        """Create the line writer.

        Args:
            descriptor: of the file, pipe or terminal to write to; it stays the caller's.
            lines_max: calls of `write` that may wait; more are dropped.
            bytes_max: bytes that may wait.
        """
        self.dropped = 0  # calls of `write` that had no effect
        self._descriptor = descriptor
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0  # those of the line being written among them
        self._written_s = 0.0  # monotonic: when the descriptor last took something
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> int:
        """Queue bytes, whole lines as a rule. Returns their number, like a file's method."""
        with self._changed:
            if (
                len(self._waiting) >= self._lines_max
                or self._waiting_bytes + len(line) > self._bytes_max
            ):
                self.dropped += 1
                return len(line)
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="output", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(line)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def drain(self, stalled_s: float = STALLED_S, timeout_s: float = CLOSE_S) -> bool:
        """Wait until everything is written, while the reader reads; return whether it is.

        Args:
            stalled_s: how long to wait for a reader that takes nothing.
            timeout_s: how long to wait at all.
        """
        end_s = time.monotonic() + timeout_s
        begun_s = time.monotonic()
        with self._changed:
            while self._waiting_bytes:
                left_s = min(end_s, max(self._written_s, begun_s) + stalled_s) - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                line = self._waiting.popleft()
            is_written = self._put(line)
            with self._changed:
                self._waiting_bytes -= len(line)
                self.dropped += not is_written
                self._changed.notify_all()

    def _put(self, line: bytes) -> bool:
        """Write to the descriptor, however long that takes; return whether it took all."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
                self._written_s = time.monotonic()
            except BlockingIOError:  # somebody made the pipe non-blocking
                with suppress(OSError):
                    poll = select.poll()
                    poll.register(self._descriptor, select.POLLOUT)
                    poll.poll(_POLL_MS)
            except OSError:  # its reader is gone, the disk is full
                return False
        return True


class TextWriter:
    """The text side of a `LineWriter`, for what wants a text file (rich's Console)."""

    encoding: Final = "utf-8"

    def __init__(self, writer: LineWriter, stream: TextIO) -> None:
        self._writer = writer
        self._stream = stream

    def write(self, text: str) -> int:
        self._writer.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


_writers: Final[dict[int, LineWriter]] = {}  # by descriptor: one order of lines for each


def writer_of(stream: TextIO | None) -> LineWriter | BinaryIO | None:
    """Return what writes to a standard stream without waiting.

    A stream without a descriptor, as tests have, is written to at once. None where the process
    was started without the stream.
    """
    if stream is None:
        return None
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return getattr(stream, "buffer", None)
    writer = _writers.get(descriptor)
    if writer is None:
        writer = _writers[descriptor] = LineWriter(descriptor)
    return writer


def text_file(stream: TextIO) -> TextIO:
    """Return a text file for a standard stream whose `write` never waits and never fails."""
    writer = writer_of(stream)
    # TextWriter has what rich and structlog use of a TextIO.
    return TextWriter(writer, stream) if isinstance(writer, LineWriter) else stream  # type: ignore[return-value]


def put(text: str, *, err: bool = False) -> None:
    """Write a line to standard output, or standard error, without waiting for its reader."""
    stream = sys.stderr if err else sys.stdout
    writer = writer_of(stream)
    if writer is not None:
        writer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    elif stream is not None:
        stream.write(text + "\n")


def drain() -> None:
    """Wait for what was written, as long as somebody reads; at the end of the process."""
    for writer in _writers.values():
        writer.drain()


def lines_dropped() -> int:
    """Return how many lines could not be written since the start."""
    return sum(writer.dropped for writer in list(_writers.values()))
