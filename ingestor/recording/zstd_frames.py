"""zstd files piece by piece, past what is broken: the ground of reading and of repairing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import zstandard

from ingestor.recording.format import FRAME_MAGIC

_FEED_BYTES: Final = 32 << 10
_WINDOW_BYTES_MAX: Final = 128 << 20


@dataclass(slots=True)
class Piece:
    """Some plain text of one zstd frame.

    frame: where the frame begins in the file. end: where it ends, with its last piece; else -1.
    broken: why the frame can't be read on; `end` is then where reading continues.
    """

    plain: bytes
    frame: int
    end: int = -1
    broken: str = ""


def pieces(path: Path, start: int = 0) -> Iterator[Piece]:
    """Yield the plain text of a file from a frame's first byte on. Raises OSError.

    After a broken frame it goes on with the next that can be found by its magic number.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        if file.tell() <= start:
            return
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            frame = start
            while frame < len(data):
                for piece in _frame(data, frame):
                    frame = max(frame, piece.end)
                    yield piece


def _frame(data: mmap, frame: int) -> Iterator[Piece]:
    """Yield the pieces of the frame at an offset; the last one has an `end` beyond it."""
    stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX).decompressobj()
    at = frame
    while at < len(data):
        block = data[at : at + _FEED_BYTES]
        at += len(block)
        try:
            plain = stream.decompress(block)
        except zstandard.ZstdError as failure:
            following = data.find(FRAME_MAGIC, frame + 1)
            end = len(data) if following < 0 else following
            yield Piece(b"", frame, end, str(failure))
            return
        if stream.eof:
            yield Piece(plain, frame, at - len(stream.unused_data))
            return
        if plain:
            yield Piece(plain, frame)
    yield Piece(b"", frame, len(data), "the file ends within a zstd frame")


def is_zstd(path: Path) -> bool:
    """Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(FRAME_MAGIC)) == FRAME_MAGIC
