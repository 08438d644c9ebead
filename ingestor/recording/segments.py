"""The recorder's files: one segment a venue is open at a time, written zstd frame by zstd frame.

Everything here runs in the recorder's thread. A failed write leaves the file as it was after the
last good frame, so that what follows stays readable; an OSError tells the recorder to try again.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Final, Literal

import zstandard

from ingestor.model.timestamps import SECOND
from ingestor.recording.files import create_exclusively
from ingestor.recording.format import FORMAT, HOUR_NS, Header, Line, encode_lines
from ingestor.recording.layout import (
    SUFFIX,
    UNFINISHED,
    Index,
    Indexed,
    encode_index,
    index_path,
    parse_segment_path,
    segment_path,
)

Fsync = Literal["never", "segment", "frame"]

FRAME_BYTES_MAX: Final = 1 << 20
FRAME_S: Final = 0.7  # a second is what a crash may cost; the rest is for waiting and writing
_LEVEL: Final = 1  # 3 costs twice the time for a tenth of the size
_GRACE_S: Final = 5.0  # a frame may be handed over a little after its hour


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """path: folder that holds `raw/`. buffer_bytes: memory for frames not yet written.

    segment_bytes: compressed size, segment_s: age, at which a segment is finished (each hour ends
    one too). retention_age_s, retention_bytes: older segments, and the oldest beyond this size of
    all, are removed. fsync: never, with each finished segment, or with each zstd frame.
    retry_s: how long a failed disk is left alone at most.
    """

    path: Path
    fsync: Fsync = "segment"
    segment_bytes: int = 256 << 20
    segment_s: float = 3_600.0
    buffer_bytes: int = 64 << 20
    retention_age_s: float | None = None
    retention_bytes: int | None = None
    retry_s: float = 15.0


@dataclass(slots=True)
class _Block:
    """A compressed zstd frame on its way to the disk. plain: bytes of its text."""

    segment: Path
    compressed: bytes
    plain: int
    lines: int
    first_ts_ns: int
    first_n: int
    last_ts_ns: int


class _File:
    """One `.inprogress` file: complete zstd frames, each appended whole or not at all."""

    def __init__(self, final: Path, fsync: Fsync) -> None:
        """Raises OSError."""
        self.final = final
        self.path = final.with_name(final.name + UNFINISHED)
        self.index = Index()
        self._syncs = fsync != "never"
        self._syncs_frames = fsync == "frame"
        self._plain = 0
        self._torn = False
        self._renamed = False
        final.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        lock(self._descriptor)  # `repair` keeps off what is being written

    def append(self, block: _Block) -> None:
        """Raises OSError; the file then ends where it ended before, once `append` works again."""
        start = self.index.size
        if self._torn:
            os.ftruncate(self._descriptor, start)
            os.lseek(self._descriptor, start, os.SEEK_SET)
        self._torn = True
        rest = memoryview(block.compressed)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        if self._syncs_frames:
            os.fdatasync(self._descriptor)
        self._torn = False
        self.index.add(Indexed(block.first_ts_ns, block.first_n, start, self._plain))
        self.index.size = start + len(block.compressed)
        self.index.last_ts_ns = block.last_ts_ns
        self._plain += block.plain

    def finish(self) -> None:
        """Sync, write the index, rename. Raises OSError; it may be called again."""
        if self._torn:
            os.ftruncate(self._descriptor, self.index.size)
            self._torn = False
        if self._syncs:
            os.fsync(self._descriptor)
        write_atomically(index_path(self.final), encode_index(self.index), sync=self._syncs)
        if not self._renamed:
            self.path.rename(self.final)
            self._renamed = True
        if self._syncs:
            sync_folder(self.final.parent)
        os.close(self._descriptor)

    def abandon(self) -> None:
        """Leave the file `.inprogress`, for `repair`."""
        os.close(self._descriptor)


class SegmentWriter:
    """The segments of one venue: lines are added, compressed a frame at a time, and written.

    `add`, `tick` and `end` touch no file; `write` does, and may be called again after an OSError.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        session: str,
        venue: str,
        header: Callable[[SegmentWriter, int], Header],
    ) -> None:
        """header: makes the first line of a segment that begins at a time (ns)."""
        self.venue = venue
        self.n = 0  # number of the next line
        self.named: set[int] = set()  # instruments that the segment's lines gave already
        self.lines: list[Line] = []  # not encoded yet; the recorder appends
        self.lines_written = 0
        self.bytes_written = 0
        self._settings = settings
        self._session = session
        self._header = header
        self._queue: deque[_Block | None] = deque()  # None: finish the open file
        self._file: _File | None = None
        self._segment: Path | None = None
        self._segment_hour = 0
        self._segment_bytes = 0
        self._segment_ends_s = 0.0
        self._compress = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress
        self._parts: list[bytes] = []
        self._plain = 0
        self._lines = 0
        self._taken = 0  # lines that `encode` is at
        self._first = (0, 0)  # ts_ns, n
        self._last_ts_ns = 0
        self._began_s = 0.0

    @property
    def lines_pending(self) -> int:
        """Lines that were taken and are in no file yet."""
        waiting = sum(block.lines for block in self._queue if block is not None)
        return len(self.lines) + self._lines + waiting

    def encode(self, now_s: float) -> None:
        """Take what is in `lines` into the current zstd frame. now_s: monotonic."""
        lines, self.lines = self.lines, []
        while lines:
            self._taken = len(lines)
            begins_ns = lines[0].ts_ns
            hour = begins_ns // HOUR_NS if self._segment is None else self._segment_hour
            end = len(lines)
            if lines[-1].ts_ns // HOUR_NS > hour:
                end = next(i for i, line in enumerate(lines) if line.ts_ns // HOUR_NS > hour)
            self._add(lines[:end], now_s)
            lines = lines[end:]
            self._taken = len(lines)
            if lines:
                self.end()

    def _add(self, lines: Sequence[Line], now_s: float) -> None:
        if not lines:
            return
        text = encode_lines(lines)
        if self._plain + len(text) > FRAME_BYTES_MAX:
            self._cut()
        if self._segment is None:
            self._begin(lines[0], now_s)
        if not self._lines:
            self._first = (lines[0].ts_ns, lines[0].n)
            self._began_s = now_s
        self._parts.append(text)
        self._plain += len(text)
        self._lines += len(lines)
        self._last_ts_ns = lines[-1].ts_ns

    def _begin(self, line: Line, now_s: float) -> None:
        self._segment = segment_path(
            self._settings.path, self.venue, line.ts_ns, self._session, line.n
        )
        self._segment_hour = line.ts_ns // HOUR_NS
        self._segment_bytes = 0
        hour_ends_s = (HOUR_NS - line.ts_ns % HOUR_NS) / SECOND + _GRACE_S
        self._segment_ends_s = now_s + min(self._settings.segment_s, hour_ends_s)
        self.named.clear()
        header = self._header(self, line.ts_ns)
        header.format, header.session, header.venue = FORMAT, self._session, self.venue
        header.ts_ns, header.n = line.ts_ns, line.n
        self._parts.append(encode_lines([header]))
        self._plain += len(self._parts[-1])

    def _cut(self) -> None:
        """Close the current zstd frame."""
        if not self._lines:
            return
        assert self._segment is not None
        block = _Block(
            segment=self._segment,
            compressed=self._compress(b"".join(self._parts)),
            plain=self._plain,
            lines=self._lines,
            first_ts_ns=self._first[0],
            first_n=self._first[1],
            last_ts_ns=self._last_ts_ns,
        )
        self._queue.append(block)
        self._parts.clear()
        self._plain = self._lines = 0
        self._segment_bytes += len(block.compressed)
        if self._segment_bytes >= self._settings.segment_bytes:
            self.end()

    def end(self) -> None:
        """End the segment; the next line begins another."""
        self._cut()
        if self._segment is not None:
            self._segment = None
            self._queue.append(None)

    def tick(self, now_s: float) -> None:
        """End what is old enough. now_s: monotonic."""
        if self._lines and now_s - self._began_s >= FRAME_S:
            self._cut()
        if self._segment is not None and now_s >= self._segment_ends_s:
            self.end()

    def write(self) -> int:
        """Write all that is cut; return the number of segments finished. Raises OSError."""
        finished = 0
        while self._queue:
            block = self._queue[0]
            if block is None:
                if self._file is not None:
                    self._file.finish()
                    self._file = None
                    finished += 1
            else:
                if self._file is None:
                    self._file = _File(block.segment, self._settings.fsync)
                self._file.append(block)
                self.lines_written += block.lines
                self.bytes_written += len(block.compressed)
            self._queue.popleft()
        return finished

    def renew(self) -> int:
        """After an error, give up what is not cut yet; the next line begins another segment.

        Returns the number of lines that are lost.
        """
        lost = len(self.lines) + self._taken + self._lines
        self.lines = []
        self._parts.clear()
        self._taken = self._plain = self._lines = 0
        self.end()
        return lost

    def abandon(self) -> None:
        """Give up what could not be written; the file stays `.inprogress`."""
        if self._file is not None:
            self._file.abandon()
            self._file = None


def lock(descriptor: int) -> None:
    """Raises BlockingIOError when another process writes the file."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, *, sync: bool) -> None:
    """Write a file that appears whole or not at all.

    Args:
        path: The file.
        content: All of its bytes.
        sync: Wait until the disk has it.

    Raises:
        OSError: The file can't be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with create_exclusively(temporary) as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def retain(settings: RecorderSettings, now_s: float) -> int:
    """Remove finished segments that are too old, and the oldest while all are too large.

    Nothing but what a recorder wrote is removed or counted: regular files whose name and folder
    are those of a segment. Unfinished files are left alone.

    now_s: seconds since the epoch. Returns how many were removed.
    """
    if settings.retention_age_s is None and settings.retention_bytes is None:
        return 0
    segments = []
    root = settings.path / "raw"
    for path in root.glob(f"venue=*/date=*/hour=*/*{SUFFIX}"):
        name = parse_segment_path(path)
        if name is None or name.hour < 0:
            continue
        try:
            if not path.parent.resolve().is_relative_to(root.resolve()):
                continue
            status = path.lstat()
        except FileNotFoundError:
            continue  # another process was quicker
        if S_ISREG(status.st_mode):
            segments.append((status.st_mtime, status.st_size, path))
    segments.sort()
    total = sum(size for _, size, _ in segments)
    limit = settings.retention_bytes
    oldest_s = now_s - (settings.retention_age_s or float("inf"))
    removed = 0
    for modified_s, size, path in segments:
        if modified_s >= oldest_s and (limit is None or total <= limit):
            break
        path.unlink(missing_ok=True)
        index_path(path).unlink(missing_ok=True)
        total -= size
        removed += 1
    return removed
