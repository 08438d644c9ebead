"""Makes a recording that a crash or a full disk cut readable again, and says what was cut.

Complete zstd frames are copied as they are. Of a broken one, the lines before the break are kept
where they are whole. The result replaces the file in one step.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from ingestor.model.errors import RecordingError
from ingestor.recording.files import create_exclusively, open_regular, regular_files
from ingestor.recording.format import Header, Line
from ingestor.recording.layout import (
    SUFFIX,
    UNFINISHED,
    Index,
    Indexed,
    encode_index,
    finished_path,
    index_path,
)
from ingestor.recording.lines import LineReader
from ingestor.recording.segments import lock, sync_folder, write_atomically
from ingestor.recording.zstd_frames import Piece, is_zstd, pieces

CUTS_MAX: Final = 1_000  # a file that is broken in more places is refused


@dataclass(frozen=True, slots=True)
class Cut:
    """Describe a part that was cut out. offset, size: bytes of the compressed file."""

    offset: int
    size: int
    reason: str


@dataclass(slots=True)
class RepairReport:
    """path: where the repaired file lies. changed: False when it was whole and finished.

    unfinished: its recorder was ended while it wrote it; what it had not written yet, a second at
    most after `last_ts_ns`, is in no file.
    frames, lines: kept. first_ts_ns, last_ts_ns: of the lines kept, 0 when there is none.
    lines_rescued: those from broken zstd frames, part of `lines`. error: why nothing was done.
    """

    path: str
    changed: bool = False
    unfinished: bool = False
    frames: int = 0
    lines: int = 0
    lines_rescued: int = 0
    first_ts_ns: int = 0
    last_ts_ns: int = 0
    cuts: list[Cut] = field(default_factory=list)
    error: str = ""

    @property
    def bytes_cut(self) -> int:
        return sum(cut.size for cut in self.cuts)


def repair_all(path: Path) -> list[RepairReport]:
    """Repair a file, or every segment below a folder. What can't be is in `error`."""
    reports = []
    files = [path]
    if path.is_dir():

        def refuse(path: Path, what: str) -> None:
            if path.name.removesuffix(UNFINISHED).endswith(SUFFIX):
                reports.append(RepairReport(str(path), error=f"{path}: {what}"))

        files = [
            file
            for file in regular_files(path, refuse)
            if file.name.removesuffix(UNFINISHED).endswith(SUFFIX)
        ]
    for file in files:
        try:
            reports.append(repair(file))
        except RecordingError as failure:
            reports.append(RepairReport(str(file), error=str(failure)))
        except OSError as failure:
            what = failure.strerror or str(failure)
            reports.append(RepairReport(str(file), error=f"{file}: {what}"))
    return reports


def repair(path: Path) -> RepairReport:
    """Repair one file in place (an `.inprogress` one gets its final name).

    Raises OSError, and RecordingError when it is no recording or another process writes it.
    """
    with open_regular(path) as file:
        try:
            lock(file.fileno())
        except BlockingIOError:
            raise RecordingError(str(path), 0, "is being written by another process") from None
        if os.fstat(file.fileno()).st_size and not is_zstd(path):
            raise RecordingError(str(path), 0, "is no zstd file")
        return _repair(path, file.fileno())


def _repair(path: Path, descriptor: int) -> RepairReport:
    final = finished_path(path)
    found = _Scan(path)
    report = found.report
    report.path = str(final)
    report.unfinished = path != final
    report.changed = bool(report.cuts) or report.unfinished
    if not report.changed:
        return report
    if not report.lines:
        if not report.unfinished:  # whatever it is, it is not for us to remove
            raise RecordingError(
                str(path), 0, f"holds no line of a recording; {report.cuts[0].reason}"
            )
        path.unlink()
        report.path = ""
        return report
    temporary = final.with_name(final.name + ".tmp")
    try:
        with create_exclusively(temporary) as new:
            for kept in found.keep:
                kept.new_start = new.tell()
                if kept.rescued:
                    _compress(path, kept, new)
                else:
                    _copy(descriptor, new, kept)
            found.index.size = new.tell()
            os.fsync(new.fileno())
        temporary.replace(final)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _move(found.index, found.keep)
    write_atomically(index_path(final), encode_index(found.index), sync=True)
    if path != final:
        path.unlink()
    sync_folder(final.parent)
    return report


def _copy(source: int, new: BinaryIO, kept: _Kept) -> None:
    new.flush()
    start = kept.start
    while start < kept.end:
        count = os.copy_file_range(source, new.fileno(), kept.end - start, start)
        if not count:
            raise OSError(f"the file ends at byte {start}")
        start += count
    new.seek(0, os.SEEK_END)


def _compress(path: Path, kept: _Kept, new: BinaryIO) -> None:
    """Write the whole lines of a broken frame as a frame of its own."""
    stream = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    left = kept.rescued
    for piece in pieces(path, kept.start, kept.end):
        new.write(stream.compress(piece.plain[:left]))
        left -= min(left, len(piece.plain))
        if not left:
            break
    new.write(stream.flush())


def _move(index: Index, keep: Sequence[_Kept]) -> None:
    """Turn the offsets of an index, which are those of the old file, into those of the new one."""
    starts = [kept.start for kept in keep]
    for frame in index.frames:
        kept = keep[bisect_right(starts, frame.offset) - 1]
        frame.offset += kept.new_start - kept.start


@dataclass(slots=True)
class _Kept:
    """Frames of the old file, one after the other, that go into the new one.

    rescued: bytes of plain text to keep of a single broken frame; 0 for whole frames.
    """

    start: int
    end: int
    rescued: int = 0
    new_start: int = 0


class _Scan:
    """One pass over a file: what to keep of it, and the index of what is kept."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and RecordingError when it holds no lines of a recording."""
        self.report = RepairReport(str(path))
        self.keep: list[_Kept] = []
        self.index = Index()
        self._plain = 0  # bytes of text of the frames that are kept
        self._first: Line | None = None  # of the current frame
        self._frame_lines = 0
        self._frame_plain = 0  # bytes of text of the current frame
        # Bad lines are the reader's to name; the frame is whole.
        reader = LineReader(str(path), 0, lambda offset, what: None)
        begin = 0  # offset of the current frame in the text
        for piece in pieces(path):
            self._count(reader.take(piece.plain))
            self._frame_plain += len(piece.plain)
            if piece.end < 0:
                continue
            if piece.broken:
                whole = reader.lines_end - begin
                self._broken(piece, max(whole, 0))
                reader.broken()
            else:
                self._whole(piece)
            begin = reader.offset
        self._count(reader.last())

    def _count(self, lines: Sequence[Line]) -> None:
        timed = [line for line in lines if not isinstance(line, Header)]
        if timed:
            self._first = self._first or timed[0]
            self.index.last_ts_ns = self.report.last_ts_ns = timed[-1].ts_ns
            self.report.first_ts_ns = self.report.first_ts_ns or timed[0].ts_ns
        self._frame_lines += len(lines)

    def _whole(self, piece: Piece) -> None:
        last = self.keep[-1] if self.keep else None
        if last is not None and not last.rescued and last.end == piece.frame:
            last.end = piece.end
        else:
            self.keep.append(_Kept(piece.frame, piece.end))
        self._add(piece.frame, self._frame_plain)

    def _broken(self, piece: Piece, whole: int) -> None:
        """whole: bytes of its text that are whole lines."""
        cuts = self.report.cuts
        cuts.append(Cut(piece.frame, piece.end - piece.frame, piece.broken))
        if len(cuts) > CUTS_MAX:
            what = f"more than {CUTS_MAX:,} broken zstd frames"
            raise RecordingError(self.report.path, 0, what)
        if self._frame_lines:
            self.report.lines_rescued += self._frame_lines
            self.keep.append(_Kept(piece.frame, piece.end, whole))
            self._add(piece.frame, whole)
        else:
            self._begin()

    def _add(self, offset: int, plain: int) -> None:
        """Count a frame that is kept. offset: in the old file. plain: bytes of its text."""
        if self._first is not None:
            first = self._first
            self.index.add(Indexed(first.ts_ns, first.n, offset, self._plain))
        self._plain += plain
        self.report.frames += 1
        self.report.lines += self._frame_lines
        self._begin()

    def _begin(self) -> None:
        self._first = None
        self._frame_lines = self._frame_plain = 0
