"""Read zstd files piece by piece, past what is broken, within bounded memory.

A zstd block holds at most 128 KiB of plain text however small it is (RFC 8878 section 3.1.1.2), but
32 KiB of a file may be 8,000 blocks. So blocks are counted before they are decompressed: a piece
is at most `PIECE_BYTES_MAX` whatever the file says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import zstandard

from ingestor.model.errors import RecordingError
from ingestor.recording.files import open_regular
from ingestor.recording.format import FRAME_MAGIC

WINDOW_BYTES_MAX: Final = 8 << 20  # what RFC 8878 section 3.1.1.1.2 asks every decoder to support
BLOCK_BYTES_MAX: Final = 128 << 10
_BLOCKS: Final = 4  # decompressed with one call
PIECE_BYTES_MAX: Final = _BLOCKS * BLOCK_BYTES_MAX
_MAGIC_BYTES: Final = 4
_HEADER_BYTES_MAX: Final = 18
_BLOCK_HEADER_BYTES: Final = 3
_CHECKSUM_BYTES: Final = 4
_SKIPPABLE: Final = 0x184D2A50  # and the next 15: RFC 8878 section 3.1.2
_RLE: Final = 1
_RESERVED: Final = 3
_CUT: Final = "the file ends within a zstd frame"
_DICTIONARY_ID_BYTES: Final = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)


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


def pieces(path: Path, start: int = 0, end: int | None = None) -> Iterator[Piece]:
    """Yield the plain text of a file from a frame's first byte on.

    After a broken frame it goes on with the next that can be found by its magic number.

    Args:
        path: the file.
        start: offset of the first frame to read.
        end: offset of the first frame to leave out; None for the end of the file.

    Raises:
        OSError: if the file can't be read.
        RecordingError: if it is no regular file, or needs more memory than we give it.
    """
    with open_regular(path) as file:
        file.seek(0, 2)
        if file.tell() <= start:
            return
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            frame = start
            stop = len(data) if end is None else min(end, len(data))
            while frame < stop:
                _check_window(path, data, frame)
                for piece in _frame(data, frame):
                    frame = max(frame, piece.end)
                    yield piece


def _check_window(path: Path, data: mmap, frame: int) -> None:
    """Refuse a file that needs more memory: to cut it as broken would lose what is whole."""
    try:
        window = zstandard.get_frame_parameters(data[frame : frame + _HEADER_BYTES_MAX]).window_size
    except zstandard.ZstdError:
        return  # no header of a frame: that is found again, and cut
    if window > WINDOW_BYTES_MAX:
        what = f"its zstd window is {window:,} bytes, above the limit of {WINDOW_BYTES_MAX:,}"
        raise RecordingError(str(path), 0, f"{what}; compress it again without --long or --ultra")


def _frame(data: mmap, frame: int) -> Iterator[Piece]:
    """Yield the pieces of the frame at an offset; the last one has an `end` beyond it."""
    if _number(data, frame, _MAGIC_BYTES) & ~0xF == _SKIPPABLE:
        end = frame + 2 * _MAGIC_BYTES + _number(data, frame + _MAGIC_BYTES, _MAGIC_BYTES)
        yield Piece(b"", frame, end) if end <= len(data) else _broken(data, frame, _CUT)
        return
    # One object a frame: after an error its state is of no use.
    stream = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()
    begin, blocks = frame, 0
    for end, problem in _block_ends(data, frame):
        blocks += 1
        if problem is None and blocks < _BLOCKS:
            continue
        try:
            plain = stream.decompress(data[begin:end])
        except zstandard.ZstdError as failure:
            yield _broken(data, frame, str(failure))
            return
        begin, blocks = end, 0
        if problem == "" and stream.eof:
            yield Piece(plain, frame, end)
            return
        if plain:
            yield Piece(plain, frame)
        if problem is not None:
            yield _broken(data, frame, problem or "a zstd frame goes on after its last block")


def _broken(data: mmap, frame: int, reason: str) -> Piece:
    following = data.find(FRAME_MAGIC, frame + 1)
    return Piece(b"", frame, len(data) if following < 0 else following, reason)


def _block_ends(data: mmap, frame: int) -> Iterator[tuple[int, str | None]]:
    """Yield where the header and each block of a frame end, and what is wrong there.

    None: the frame goes on. "": it ends, and nothing is wrong.
    """
    at = frame
    end = _header_end(data, frame)
    checksum_bytes = _CHECKSUM_BYTES if data[min(frame + _MAGIC_BYTES, len(data) - 1)] & 4 else 0
    while end <= len(data):
        at = end
        yield at, None
        header = _number(data, at, _BLOCK_HEADER_BYTES)
        kind, size = header >> 1 & 3, header >> 3
        if kind == _RESERVED or size > BLOCK_BYTES_MAX:
            yield at, "a zstd block has no valid header"
            return
        end = at + _BLOCK_HEADER_BYTES + (1 if kind == _RLE else size)
        if header & 1:
            end += checksum_bytes
            if end <= len(data):
                yield end, ""
                return
    yield at, _CUT


def _header_end(data: mmap, frame: int) -> int:
    """Return the offset of a frame's first block (RFC 8878 section 3.1.1.1)."""
    descriptor = _number(data, frame + _MAGIC_BYTES, 1)
    is_single = descriptor >> 5 & 1
    content_size = _CONTENT_SIZE_BYTES[descriptor >> 6] or is_single
    window = 0 if is_single else 1
    return frame + _MAGIC_BYTES + 1 + window + _DICTIONARY_ID_BYTES[descriptor & 3] + content_size


def _number(data: mmap, at: int, size: int) -> int:
    """Return a little-endian number; beyond the end of the file there are zeros."""
    return int.from_bytes(data[at : at + size], "little")


def is_zstd(path: Path) -> bool:
    """Raises OSError, and RecordingError when it is no regular file."""
    with open_regular(path) as file:
        return file.read(len(FRAME_MAGIC)) == FRAME_MAGIC
