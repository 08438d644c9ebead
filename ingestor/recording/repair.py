"""Makes a recording that a crash or a full disk cut readable again, and says what was cut.

Complete zstd frames are copied as they are. Of a broken one, the lines before the break are kept
where they are whole. The result replaces the file in one step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from ingestor.model.errors import RecordingError
from ingestor.recording.format import Header, Line, parse_line, parse_lines
from ingestor.recording.layout import (
    SUFFIX,
    UNFINISHED,
    Index,
    Indexed,
    encode_index,
    finished_path,
    index_path,
)
from ingestor.recording.segments import lock, sync_folder, write_atomically
from ingestor.recording.zstd_frames import is_zstd, pieces


@dataclass(frozen=True, slots=True)
class Cut:
    """What is gone. offset, size: bytes of the file (compressed)."""

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
    if path.is_dir():
        files = sorted(
            one
            for one in path.rglob("*")
            if one.is_file() and one.name.removesuffix(UNFINISHED).endswith(SUFFIX)
        )
    else:
        files = [path]
    reports = []
    for one in files:
        try:
            reports.append(repair(one))
        except (OSError, RecordingError) as failure:
            reports.append(RepairReport(str(one), error=str(failure)))
    return reports


def repair(path: Path) -> RepairReport:
    """Repair one file in place (an `.inprogress` one gets its final name).

    Raises OSError, and RecordingError when it is no recording or another process writes it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            lock(descriptor)
        except BlockingIOError:
            raise RecordingError(str(path), 0, "is being written by another process") from None
        if os.fstat(descriptor).st_size and not is_zstd(path):
            raise RecordingError(str(path), 0, "is no zstd file")
        return _repair(path)
    finally:
        os.close(descriptor)


def _repair(path: Path) -> RepairReport:
    final = finished_path(path)
    found = _Scan(path)
    report = found.report
    report.path = str(final)
    report.unfinished = path != final
    report.changed = bool(report.cuts) or report.unfinished
    if not report.changed:
        return report
    if not report.lines:
        path.unlink()
        report.path = ""
        return report
    temporary = final.with_name(final.name + ".tmp")
    with path.open("rb") as old, temporary.open("wb") as new:
        for start, end, replacement in found.keep:
            if replacement is None:
                _copy(old.fileno(), new.fileno(), start, end)
            else:
                os.write(new.fileno(), replacement)
        os.fsync(new.fileno())
    temporary.replace(final)
    write_atomically(index_path(final), encode_index(found.index), sync=True)
    if path != final:
        path.unlink()
    sync_folder(final.parent)
    return report


def _copy(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        count = os.copy_file_range(source, target, end - start, start)
        if not count:
            raise OSError(f"the file ends at byte {start}")
        start += count


class _Scan:
    """One pass over a file: what to keep of it, and the index of what is kept."""

    def __init__(self, path: Path) -> None:
        """keep: (start, end, None) of frames to copy, or what stands in for a broken one."""
        self.report = RepairReport(str(path))
        self.keep: list[tuple[int, int, bytes | None]] = []
        self.index = Index()
        self._plain = 0
        texts: list[bytes] = []
        for piece in pieces(path):
            texts.append(piece.plain)
            if piece.end < 0:
                continue
            text = b"".join(texts)
            texts = []
            if piece.broken:
                self._broken(piece.frame, piece.end, text, piece.broken)
            else:
                self._whole(piece.frame, piece.end, text)

    def _whole(self, start: int, end: int, text: bytes) -> None:
        try:
            lines = parse_lines(text)
        except ValueError:
            lines = _readable(text)  # bad lines are the reader's to name; the frame is whole
        self._add(start, end, None, len(text), end - start, lines)

    def _broken(self, start: int, end: int, text: bytes, reason: str) -> None:
        whole = text[: text.rfind(b"\n") + 1]
        lines = _readable(whole)
        self.report.cuts.append(Cut(start, end - start, reason))
        if not lines:
            return
        frame = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(whole)
        self.report.lines_rescued += len(lines)
        self._add(start, end, frame, len(whole), len(frame), lines)

    def _add(
        self,
        start: int,
        end: int,
        replacement: bytes | None,
        plain: int,
        size: int,
        lines: list[Line],
    ) -> None:
        self.keep.append((start, end, replacement))
        times = [(line.ts_ns, line.n) for line in lines if not isinstance(line, Header)]
        if times:
            self.index.frames.append(Indexed(*times[0], self.index.size, self._plain))
            self.index.last_ts_ns = times[-1][0]
            self.report.first_ts_ns = self.report.first_ts_ns or times[0][0]
            self.report.last_ts_ns = times[-1][0]
        self.index.size += size
        self._plain += plain
        self.report.frames += 1
        self.report.lines += len(lines)


def _readable(text: bytes) -> list[Line]:
    lines = []
    for line in text.splitlines():
        try:
            lines.append(parse_line(line))
        except ValueError:
            continue
    return lines
