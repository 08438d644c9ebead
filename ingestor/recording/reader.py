"""Recorded lines from files and folders, several merged by time. What is broken is told.

A `SegmentChain` is what one session recorded of one venue, segment after segment, or one file of
others. Inside a chain the order of the files counts (their clocks step back here and there);
between chains the time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from itertools import accumulate
from pathlib import Path
from typing import Final

from ingestor.model.errors import RecordingError
from ingestor.recording.files import open_regular, regular_files
from ingestor.recording.format import FORMAT, FRAME_MAGIC, LOST, Decided, Header, Line
from ingestor.recording.layout import (
    INDEX,
    INDEX_BYTES_MAX,
    SUFFIX,
    UNFINISHED,
    index_path,
    parse_index,
    parse_segment_path,
)
from ingestor.recording.lines import LineReader
from ingestor.recording.zstd_frames import PIECE_BYTES_MAX, is_zstd, pieces

_PROBLEMS_KEPT: Final = 100
_SLACK_NS: Final = 60_000_000_000  # how far a foreign clock may step back within a file


Chunk = tuple[Path, list[Line]]  # lines that follow each other in one file


@dataclass(slots=True)
class Problems:
    """Keep the first hundred problems of a recording, and count all.

    `tell` hears those as they come.
    """

    count: int = 0
    kept: list[RecordingError] = field(default_factory=list)
    tell: Callable[[RecordingError], None] | None = None

    def add(self, path: Path, offset: int, what: str) -> None:
        """Note a problem.

        Args:
            path: The file.
            offset: Offset in the file's plain text.
            what: Text for people.
        """
        self.count += 1
        if self.count > _PROBLEMS_KEPT + 1:
            return
        if self.count > _PROBLEMS_KEPT:
            what = "there are more problems; they are counted, not shown"
        problem = RecordingError(str(path), offset, what)
        if self.count <= _PROBLEMS_KEPT:
            self.kept.append(problem)
        if self.tell is not None:
            self.tell(problem)


class KeptLines:
    """Lines that are read once and taken twice, as long as they are few. bytes_max: of plain text
    that may still be kept.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._problems = Problems()
        self._chunks: dict[Path, list[list[Line]]] | None = {}

    def read(self, path: Path) -> Iterator[list[Line]]:
        """Read a file, and keep its lines."""
        for lines in read_lines(path, self._problems, on_text=self._count):
            if self._chunks is not None:
                self._chunks.setdefault(path, []).append(lines)
            yield lines

    def _count(self, size: int) -> None:
        self.bytes_max -= size
        if self.bytes_max < 0:
            self._chunks = None

    @property
    def are_all(self) -> bool:
        """Return True if there are lines, and no line and no problem had to be forgotten."""
        return bool(self._chunks) and self._problems.count == len(self._problems.kept)

    def take(self, path: Path, problems: Problems) -> Iterator[list[Line]]:
        """Yield the lines of a file, and forget them. problems: takes note of what can't be read,
        as `read_lines` would.
        """
        for problem in self._problems.kept:
            if problem.path == str(path):
                problems.add(path, problem.offset, problem.what)
        chunks = (self._chunks or {}).pop(path, [])
        while chunks:
            yield chunks.pop(0)


@dataclass(slots=True)
class SegmentChain:
    """Files that continue each other. header: of the first; empty where it has none.

    session: "" for a recording of others, which is known by its path alone. kept: all of its lines,
    where they were read before.
    """

    name: str
    session: str
    header: Header
    files: list[Path]
    kept: KeptLines | None = None

    @property
    def venue(self) -> str:
        return self.header.venue

    @property
    def is_foreign(self) -> bool:
        return self.header.format == 0


def read_lines(
    path: Path,
    problems: Problems,
    start: int = 0,
    plain_start: int = 0,
    on_text: Callable[[int], None] | None = None,
) -> Iterator[list[Line]]:
    """Yield the lines of one file, chunk by chunk, without those that can't be read.

    Args:
        path: The file.
        problems: Takes note of what can't be read.
        start: Offset of a zstd frame in the file, from an index.
        plain_start: Offset of that frame in the file's plain text.
        on_text: Called with the bytes of plain text that were read.
    """
    reader = LineReader(
        str(path), plain_start, lambda offset, what: problems.add(path, offset, what)
    )
    try:
        for text, broken in _texts(path, start):
            if on_text is not None:
                on_text(len(text))
            if lines := reader.take(text):
                yield lines
            if broken:
                if not path.name.endswith(UNFINISHED):
                    what = f"{broken}; `ingestor repair` makes the file whole"
                    problems.add(path, reader.offset, what)
                reader.broken()
    except OSError as failure:
        problems.add(path, reader.offset, failure.strerror or str(failure))
    except RecordingError as failure:
        problems.add(path, failure.offset, failure.what)
        return
    if lines := reader.last():
        yield lines


def _texts(path: Path, start: int) -> Iterator[tuple[bytes, str]]:
    """Yield plain text, and why it breaks off after it ("" when it doesn't)."""
    if start or is_zstd(path):
        for piece in pieces(path, start):
            yield piece.plain, piece.broken
        return
    with open_regular(path) as file:
        while text := file.read(PIECE_BYTES_MAX):
            yield text, ""


def find_files(paths: Iterable[Path], problems: Problems) -> list[Path]:
    """Return the recordings among files and folders, each once, sorted within each folder."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            if path.exists():
                found[path] = None
            else:
                problems.add(path, 0, "no such file or folder")
            continue
        for regular_file in regular_files(path, lambda path, what: problems.add(path, 0, what)):
            name = regular_file.name.removesuffix(UNFINISHED)
            if name.endswith((SUFFIX, ".jsonl")):
                found[regular_file] = None
            elif not name.endswith((INDEX, ".tmp", ".md", ".parquet", "manifest.json")):
                problems.add(regular_file, 0, f"is no recording (no name in {SUFFIX} or .jsonl)")
    return list(found)


def find_chains(paths: Iterable[Path], problems: Problems) -> list[SegmentChain]:
    """Return the chains of all recordings below some paths, by time of their first line."""
    chains: dict[tuple[str, str], list[tuple[int, Path, Header]]] = {}
    for path in find_files(paths, problems):
        header = peek(path, problems)
        if header is None:
            continue
        own = header.format > 0
        key = (header.session, header.venue) if own else (str(path), "")
        chains.setdefault(key, []).append((header.n, path, header))
    result = []
    for (name, venue), members in chains.items():
        members.sort(key=lambda member: member[0])
        first = members[0][2]
        label = f"{name} {venue}".rstrip()
        files = [path for _, path, _ in members]
        result.append(SegmentChain(label, first.session, first, files))
    result.sort(key=lambda chain: (chain.header.ts_ns, chain.name))
    return result


def peek(path: Path, problems: Problems) -> Header | None:
    """Return a file's header, an empty one where it has none; None when it is not readable."""
    scratch = Problems()
    first = next((lines for lines in read_lines(path, scratch) if lines), None)
    if first is None:
        if scratch.kept:
            problems.add(path, scratch.kept[0].offset, scratch.kept[0].what)
        elif not path.name.endswith(UNFINISHED):
            problems.add(path, 0, "is empty")
        return None
    header = first[0]
    if not isinstance(header, Header):
        name = parse_segment_path(path)
        if name is not None and name.venue:
            problems.add(path, 0, "the first line is no header; read as a recording of others")
        return Header(ts_ns=header.ts_ns)
    if header.format > FORMAT:
        what = f"format {header.format} is not known; this version reads up to {FORMAT}"
        problems.add(path, 0, what)
        return None
    if not header.ts_ns:
        header.ts_ns = next((line.ts_ns for line in first[1:]), 0)
    return header


def chain_lines(
    chain: SegmentChain,
    problems: Problems,
    *,
    start_ns: int | None = None,
    end_ns: int | None = None,
    progress: Callable[[Path], None] | None = None,
) -> Iterator[Chunk]:
    """Yield a chain's lines.

    Args:
        chain: Segments that belong together.
        problems: Takes note of what can't be read.
        start_ns: Time of the first line, approximately, as an index allows; None for all.
        end_ns: Time at which to end, exclusive; None for all.
        progress: Called with each file that was read to its end.
    """
    files = chain.files
    expected = -1
    for path in files:
        start, plain = _indexed_start(path, start_ns)
        if start < 0:
            continue
        chunks = (
            chain.kept.take(path, problems)
            if chain.kept is not None
            else read_lines(path, problems, start, plain)
        )
        for lines in filter(None, chunks):
            whole, expected = _with_losses(path, lines, expected, problems)
            chunk, is_over = _before(whole, end_ns)
            if chunk:
                yield path, chunk
            if is_over:
                return
        if progress is not None:
            progress(path)


def _indexed_start(path: Path, start_ns: int | None) -> tuple[int, int]:
    """Return where to start in a file for a time; -1 when it ends before."""
    if start_ns is None:
        return 0, 0
    try:
        with open_regular(index_path(path)) as file:
            index = parse_index(file.read(INDEX_BYTES_MAX + 1))
        if index.size != path.stat().st_size:
            return 0, 0
        if index.last_ts_ns < start_ns:
            return -1, 0
        frame = index.before(start_ns)
        if frame is None or not _begins_frame(path, frame.offset):
            return 0, 0
    except (OSError, RecordingError, ValueError):
        return 0, 0
    return frame.offset, frame.plain


def _begins_frame(path: Path, offset: int) -> bool:
    """Say whether a zstd frame begins at an offset: an index may be of another file, or lie."""
    with open_regular(path) as file:
        file.seek(offset)  # ValueError where it is negative
        return file.read(len(FRAME_MAGIC)) == FRAME_MAGIC


def _with_losses(
    path: Path, lines: list[Line], expected: int, problems: Problems
) -> tuple[list[Line], int]:
    """Say which numbers are missing, and put a line in their place; return what should follow.

    Where the recorder said itself that it lost lines, its own line stands for them.
    """
    at = int(isinstance(lines[0], Header))  # which has the number of the line after it
    if at == len(lines):
        return lines, expected
    first, last = lines[at].n, lines[-1].n
    if first < 0 or (last - first == len(lines) - at - 1 and expected in {-1, first}):
        return lines, expected if first < 0 else last + 1
    whole: list[Line] = []
    for line in lines:
        if line.n >= 0 and not isinstance(line, Header):
            missing = line.n - expected if expected >= 0 else 0
            if missing > 0:
                what = f"{missing} lines are missing before line number {line.n}"
                problems.add(path, 0, what)
                if not (isinstance(line, Decided) and line.decision.get("action") == LOST):
                    whole.append(Decided(line.ts_ns, {"action": LOST, "lines": missing}))
            expected = line.n + 1
        whole.append(line)
    return whole, expected


def _before(lines: list[Line], end_ns: int | None) -> tuple[list[Line], bool]:
    """Return the lines before a time, and whether nothing before it can follow."""
    if end_ns is None or lines[-1].ts_ns < end_ns - _SLACK_NS:
        return lines, False
    return (
        [line for line in lines if line.ts_ns < end_ns],
        lines[-1].ts_ns >= end_ns + _SLACK_NS,
    )


@dataclass(slots=True)
class _Cursor:
    """A place in a chain: the chunk at hand, and the highest time seen at each of its lines."""

    chain: SegmentChain
    source: Iterator[Chunk]
    path: Path = Path()
    lines: list[Line] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    at: int = 0
    latest: int = 0

    def fill(self) -> bool:
        """Get the next chunk; return False at the end."""
        for path, lines in self.source:
            if lines:
                times = accumulate((line.ts_ns for line in lines), max, initial=self.latest)
                self.path, self.lines, self.times, self.at = path, lines, list(times)[1:], 0
                self.latest = self.times[-1]
                return True
        return False


def merge(
    sources: Iterable[tuple[SegmentChain, Iterator[Chunk]]],
) -> Iterator[tuple[SegmentChain, Path, list[Line]]]:
    """Merge chains by time, run by run; at equal times in the order given."""
    cursors = [_Cursor(chain, source) for chain, source in sources]
    if len(cursors) == 1:
        yield from ((cursors[0].chain, path, lines) for path, lines in cursors[0].source)
        return
    heap = [
        (cursor.times[0], order, cursor) for order, cursor in enumerate(cursors) if cursor.fill()
    ]
    heapify(heap)
    while heap:
        _, order, cursor = heap[0]
        others = [heap[at][:2] for at in (1, 2) if at < len(heap)]
        end = len(cursor.lines)
        if others:
            time, other = min(others)
            end = bisect_right(cursor.times, time if order < other else time - 1, cursor.at)
        yield cursor.chain, cursor.path, cursor.lines[cursor.at : end]
        cursor.at = end
        if end < len(cursor.lines) or cursor.fill():
            heapreplace(heap, (cursor.times[cursor.at], order, cursor))
        else:
            heappop(heap)
