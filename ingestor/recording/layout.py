"""Defines where segments lie, how they are named, and the index beside each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Final

import msgspec

from ingestor.model.timestamps import SECOND

SUFFIX: Final = ".jsonl.zst"


UNFINISHED: Final = ".inprogress"


INDEX: Final = ".index"
INDEX_FRAMES_MAX: Final = 1 << 16  # a file of more frames has every second of them in its index
INDEX_BYTES_MAX: Final = 4 << 20


_NAME: Final = re.compile(
    r"(?P<session>[A-Za-z0-9][A-Za-z0-9._-]*)-(?P<n>\d{12})\.jsonl\.zst(?:\.inprogress)?"
)


@dataclass(frozen=True, slots=True)
class SegmentName:
    """Hold the parts of a segment's path. n: number of its header line. hour: hours since the
    epoch.

    venue and hour are "" and -1 where the file lies outside the Hive-style folders.
    """

    session: str
    n: int
    venue: str
    hour: int
    finished: bool


def segment_path(root: Path, venue: str, ts_ns: int, session: str, n: int) -> Path:
    """Return raw/venue=.../date=.../hour=.../<session>-<n>.jsonl.zst below `root`.

    Args:
        root: Folder of the recordings.
        venue: Name of the venue.
        ts_ns: Time of the segment's first line.
        session: Hexadecimal id of the session.
        n: Number of the segment's header line.
    """
    at = datetime.fromtimestamp(ts_ns // SECOND, UTC)
    folder = root / "raw" / f"venue={venue}" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"
    return folder / f"{session}-{n:012d}{SUFFIX}"


def parse_segment_path(path: PurePath) -> SegmentName | None:
    """Return what a segment's path says, or None when the file name is not of ours."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    keys = dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)
    hour = -1
    try:
        at = datetime.fromisoformat(f"{keys['date']}T{keys['hour']}:00:00+00:00")
        hour = int(at.timestamp()) // 3_600
    except (KeyError, ValueError):
        pass
    return SegmentName(
        session=match["session"],
        n=int(match["n"]),
        venue=keys.get("venue", ""),
        hour=hour,
        finished=not path.name.endswith(UNFINISHED),
    )


def finished_path(path: Path) -> Path:
    """Return the path that a segment has once it is finished."""
    return path.with_name(path.name.removesuffix(UNFINISHED))


def index_path(path: Path) -> Path:
    """Return where the index of a finished segment lies."""
    return path.with_name(path.name + INDEX)


class Indexed(msgspec.Struct, array_like=True):
    """One zstd frame. offset: its first byte in the file; plain: its first byte of plain text."""

    ts_ns: int
    n: int
    offset: int
    plain: int


class Index(msgspec.Struct):
    """List the zstd frames of a segment in order, with ts_ns and n of the first line of each."""

    frames: list[Indexed] = []
    size: int = 0  # bytes of the file
    last_ts_ns: int = 0

    def add(self, frame: Indexed) -> None:
        """Add a frame after the others."""
        self.frames.append(frame)
        if len(self.frames) > INDEX_FRAMES_MAX:
            del self.frames[1::2]

    def before(self, ts_ns: int) -> Indexed | None:
        """Return the last frame that begins before a time: where to start reading for it."""
        found = None
        for frame in self.frames:
            if frame.ts_ns >= ts_ns:
                break
            found = frame
        return found


def encode_index(index: Index) -> bytes:
    return msgspec.json.encode(index)


def parse_index(text: bytes) -> Index:
    """Raises ValueError when it is no index, or larger than any of ours."""
    if len(text) > INDEX_BYTES_MAX:
        raise ValueError(f"an index of more than {INDEX_BYTES_MAX:,} bytes")
    try:
        return msgspec.json.decode(text, type=Index)
    except (msgspec.MsgspecError, RecursionError) as failure:
        raise ValueError(str(failure)) from None
