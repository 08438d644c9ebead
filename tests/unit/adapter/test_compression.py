"""Compressed frames: opened exactly, or refused with little memory."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import gunzipped, inflated

TEXT = b'{"ch":"market.btcusdt.bbo","ts":1767225600123}'
Open = Callable[[bytes, int], bytes]


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


PACKED = [
    pytest.param(gunzipped, gzip.compress, id="gzip"),
    pytest.param(inflated, deflated, id="deflate"),
    pytest.param(inflated, zlib.compress, id="zlib where deflate is usual"),
    pytest.param(inflated, gzip.compress, id="gzip where deflate is usual"),
]
both = pytest.mark.parametrize(("opened", "packed"), PACKED)


@both
@pytest.mark.parametrize("content", [b"", b"x", TEXT, TEXT * 1_000], ids=len)
def test_content_comes_back(opened: Open, packed: Callable[[bytes], bytes], content: bytes) -> None:
    assert opened(packed(content), 1 << 20) == content


@pytest.mark.parametrize("opened", [gunzipped, inflated])
@pytest.mark.parametrize("payload", [b"", TEXT, b"[1]", b'"x"'])
def test_a_frame_that_was_opened_before_is_returned(opened: Open, payload: bytes) -> None:
    """As in recordings of those who keep the text alone."""
    assert opened(payload, 10) is payload


@both
def test_every_prefix_is_refused(opened: Open, packed: Callable[[bytes], bytes]) -> None:
    frame = packed(TEXT)
    for length in range(3, len(frame)):
        with pytest.raises(ValueError, match="compressed frame"):
            opened(frame[:length], 1 << 20)


@both
def test_bytes_behind_the_content_are_refused(
    opened: Open, packed: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(ValueError, match="followed by other bytes"):
        opened(packed(TEXT) + b"\x00", 1 << 20)


@both
def test_the_bound_is_exact(opened: Open, packed: Callable[[bytes], bytes]) -> None:
    assert opened(packed(TEXT), len(TEXT)) == TEXT
    with pytest.raises(ValueError, match="holds more than"):
        opened(packed(TEXT), len(TEXT) - 1)


@both
def test_a_bomb_costs_the_bound_at_most(opened: Open, packed: Callable[[bytes], bytes]) -> None:
    bomb = packed(bytes(100 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds more than"):
            opened(bomb, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@given(payload=st.binary(max_size=200))
def test_any_bytes_are_opened_or_refused(payload: bytes) -> None:
    for opened in (gunzipped, inflated):
        try:
            assert len(opened(payload, 1 << 16)) <= max(len(payload), 1 << 16)
        except ValueError:
            continue


@given(content=st.binary(max_size=300), at=st.integers(0, 1_000), bit=st.integers(0, 7))
def test_a_flipped_bit_of_gzip_is_found(content: bytes, at: int, bit: int) -> None:
    """gzip has a checksum: what is opened is what was packed, wherever the bit is."""
    frame = bytearray(gzip.compress(content, mtime=0))
    frame[at % len(frame)] ^= 1 << bit
    try:
        found = gunzipped(bytes(frame), 1 << 16)
    except ValueError:
        return
    assert found in {content, bytes(frame)}
