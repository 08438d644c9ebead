"""LZ4 frames without checksums of blocks, which pierrec/lz4 before 4.1.22 refuses."""

from __future__ import annotations

from typing import Final

import cramjam

# LZ4 frame format 1.6.3: magic number; version 1, independent blocks (KIP-57 wants them), no
# checksums; blocks of up to 4 MiB; the checksum of these two bytes.
_HEAD: Final = bytes.fromhex("04224d18607073")
_END: Final = bytes(4)
_STORED: Final = 1 << 31  # the bit of a size that says that the block is not compressed
BLOCK_MAX: Final = 4 << 20


def frame_of(block: bytes) -> bytes:
    """Return the frame of one compressed block of at most BLOCK_MAX plain bytes."""
    return b"".join((_HEAD, len(block).to_bytes(4, "little"), block, _END))


def compressed(data: bytes) -> bytes:
    """Return the frame of some data, compressed at the fastest level."""
    parts = [_HEAD]
    for start in range(0, len(data), BLOCK_MAX):
        plain = data[start : start + BLOCK_MAX]
        block = bytes(cramjam.lz4.compress_block(plain, store_size=False))
        if len(block) < len(plain):
            parts += (len(block).to_bytes(4, "little"), block)
        else:
            parts += ((len(plain) | _STORED).to_bytes(4, "little"), plain)
    return b"".join((*parts, _END))
