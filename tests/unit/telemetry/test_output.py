"""ingestor.telemetry.output: no write waits, whatever the reader does; no text forges a line."""

from __future__ import annotations

import fcntl
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import structlog

from ingestor.config.model import LogConfig
from ingestor.telemetry.logs import configure
from ingestor.telemetry.output import LineWriter, printable, writer_of

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    # The other end stays open: a writer's thread may still have lines for it, which would go into
    # whatever gets its number next. Without a reader they fail at once.
    with suppress(OSError):
        os.close(reading)


def test_lines_come_out_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing)
    lines = [b"%d\n" % number for number in range(100)]
    for line in lines:
        writer.write(line)
    assert writer.drain()
    assert os.read(reading, 4096) == b"".join(lines)
    assert writer.dropped == 0


@pytest.mark.rows("I9")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_does_not_read_is_not_waited_for(
    pipe: tuple[int, int], blocking: bool
) -> None:
    _, writing = pipe
    os.set_blocking(writing, blocking)
    writer = LineWriter(writing, lines_max=50, bytes_max=100_000)
    for _ in range(1_000):
        writer.write(b"x" * 999 + b"\n")
    assert writer.dropped >= 900
    assert not writer.drain()  # a wait would be for ever


def test_the_queue_is_bounded_in_bytes(pipe: tuple[int, int]) -> None:
    _, writing = pipe
    writer = LineWriter(writing, lines_max=10_000, bytes_max=64 << 10)
    for _ in range(100):
        writer.write(b"x" * (4 << 10))
    assert writer.dropped >= 100 - 16 - 2


def test_a_slow_reader_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing)
    total = 32 << 10
    for _ in range(16):
        writer.write(b"x" * (total // 16))
    got: list[bytes] = []

    def read() -> None:
        while sum(map(len, got)) < total:
            time.sleep(0.05)
            got.append(os.read(reading, 4096))

    thread = threading.Thread(target=read)
    thread.start()
    assert writer.drain(stalled_s=10.0, timeout_s=30.0)
    thread.join()
    assert writer.dropped == 0


@pytest.mark.rows("I9")
def test_what_cannot_be_written_is_counted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    gone = LineWriter(writing)
    full_descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        full = LineWriter(full_descriptor)
        for writer in (gone, full):
            writer.write(b"a\n")
            writer.write(b"b\n")
            assert writer.drain()
            assert writer.dropped == 2
    finally:
        os.close(full_descriptor)


def test_a_stream_without_a_descriptor_is_written_to_at_once() -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    assert writer_of(stream) is stream.buffer
    assert writer_of(None) is None


HOSTILE = [
    "a\x1b[2J\x1b[31mred",
    "a\n2026-11-29T00:00:00Z [info     ] forged",
    "a\r\nforged",
    "a\x1b]0;title\x07",
    "a\x9b31m",
    "a\x85forged",
    "a\u2028forged",
    "a\u202egnidaelsim",
    "a\x00\x08\x7f",
    "a\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize("place", ["value", "name", "event", "nested", "exception"])
def test_a_text_of_a_venue_is_one_line(text: str, style: str, place: str) -> None:
    stream = io.BytesIO()
    configure(LogConfig(format=style), stream=stream)  # type: ignore[arg-type]
    log = structlog.get_logger()
    if place == "value":
        log.warning("feed.refused", reason=text)
    elif place == "name":
        log.warning("feed.refused", **{text: 1})
    elif place == "event":
        log.warning(text)
    elif place == "nested":
        log.warning(
            "feed.refused", streams=[text], by={"a": text}, raw=text.encode("utf-8", "replace")
        )
    else:
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("bug")
    raw = stream.getvalue()
    lines = raw.decode().split("\n")
    assert lines.pop() == ""
    if place != "exception" or style == "json":
        assert len(lines) == 1
    assert all(line.startswith(("20", "  | ", "{")) for line in lines)
    assert not [line for line in lines if line.startswith("2026-11-29T00:00:00Z")]
    assert "".join(lines).isprintable()


def test_integers_of_any_size_are_logged() -> None:
    stream = io.BytesIO()
    configure(LogConfig(format="json"), stream=stream)
    structlog.get_logger().warning("odd", number=1 << 80)
    assert str(1 << 80).encode() in stream.getvalue()


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("BTC-USDT", "币安人生", "50 €", "naïve", ""):
        assert printable(text) == text
