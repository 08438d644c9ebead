"""Open compressed frames, within a bound: a venue's frame may be a bomb.

A recording holds frames as they came, or already opened by whoever recorded them. So what is no
compressed frame is returned as it is, and the adapter's parser judges it.
"""

from __future__ import annotations

import zlib
from typing import Final

_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_GZIP_WINDOW: Final = 31  # zlib's code for a gzip header
_ZLIB_WINDOW: Final = 15  # for its own
_RAW_WINDOW: Final = -15  # and for none at all
_ZLIB_FIRST: Final = 0x78
_ZLIB_CHECK: Final = 31
_TEXT_BEGINS: Final = frozenset(b'{["')  # of JSON; a raw deflate stream never begins so
_BEST_RATIO: Final = 1_032  # of deflate: one byte becomes no more (zlib's technical details)


def gunzipped(payload: bytes, bytes_max: int) -> bytes:
    """Return the content of a gzip frame; a payload that is none is returned as it is.

    Args:
        payload: of one frame.
        bytes_max: the most that it may hold.

    Raises:
        ValueError: for content that is cut short, spoiled, followed by anything, or too large.
    """
    if not payload.startswith(_GZIP_MAGIC):
        return payload
    return _opened(payload, _GZIP_WINDOW, bytes_max)


def inflated(payload: bytes, bytes_max: int) -> bytes:
    """Return the content of a raw deflate frame (RFC 1951), or of a zlib or gzip frame.

    A payload that begins as JSON text does is returned as it is.

    Args:
        payload: of one frame.
        bytes_max: the most that it may hold.

    Raises:
        ValueError: as `gunzipped` does.
    """
    if payload.startswith(_GZIP_MAGIC):
        return _opened(payload, _GZIP_WINDOW, bytes_max)
    if not payload or payload[0] in _TEXT_BEGINS:
        return payload
    # RFC 1950: the usual header of zlib, whose two bytes are a multiple of 31 together.
    is_zlib = payload[0] == _ZLIB_FIRST and int.from_bytes(payload[:2]) % _ZLIB_CHECK == 0
    return _opened(payload, _ZLIB_WINDOW if is_zlib else _RAW_WINDOW, bytes_max)


def _opened(payload: bytes, window: int, bytes_max: int) -> bytes:
    opener = zlib.decompressobj(window)
    try:
        content = opener.decompress(payload, min(bytes_max + 1, len(payload) * _BEST_RATIO + 1))
    except zlib.error as failure:
        raise ValueError(f"a compressed frame that can't be opened: {failure}") from None
    if len(content) > bytes_max:
        raise ValueError(f"a compressed frame holds more than {bytes_max:,} bytes")
    if not opener.eof:
        raise ValueError("a compressed frame is cut short")
    if opener.unused_data:
        raise ValueError("a compressed frame is followed by other bytes")
    return content
