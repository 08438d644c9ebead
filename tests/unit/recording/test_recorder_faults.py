"""Whatever fails in the recorder's thread costs the recorder alone, and it tries again."""

from __future__ import annotations

import errno
import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from ingestor.recording.format import Recv
from ingestor.recording.reader import Problems
from ingestor.recording.recorder import Recorder
from ingestor.recording.segments import SegmentWriter
from ingestor.recording.writer_thread import RecorderState, RecorderWorker
from ingestor.telemetry.bulkheads import bulkheads
from tests.faults.disk import small_disk
from tests.unit.recording.test_recorder import T0, lines_of, recorder, until

FAILURES = [
    RuntimeError("odd"),
    OSError(errno.EIO, "Input/output error"),
    StopIteration(),
    struct.error("short"),
    ArithmeticError("divided"),
    MemoryError(),
]
PLACES = {
    "an entry": (RecorderWorker, "_received"),
    "encoding": (SegmentWriter, "encode"),
    "compressing": (SegmentWriter, "_cut"),
    "a new segment": (SegmentWriter, "_begin"),
    "age": (SegmentWriter, "tick"),
    "writing": (SegmentWriter, "write"),
}


def received(one: Recorder, connection: int, count: int, begin: int) -> None:
    for number in range(begin, begin + count):
        one.received(connection, T0 + number, b"%d" % number)


@pytest.mark.rows("I1", "P3")
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("place", PLACES)
async def test_a_failure_costs_the_recorder_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected_bugs: Counter[str],
    failure: Exception,
    place: str,
) -> None:
    owner, name = PLACES[place]
    one = recorder(tmp_path, retry_s=0.2)
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://acme.example")
    await until(lambda: one.statistics().bytes_buffered == 0)
    before = bulkheads.bugs["recorder"]
    fails = True
    whole = getattr(owner, name)

    def failing(*arguments: object) -> object:
        if fails:
            raise failure
        return whole(*arguments)

    monkeypatch.setattr(owner, name, failing)
    received(one, 1, 100, 1)
    one.sent(1, T0 + 101, b"ping")
    await until(lambda: one.statistics().state is RecorderState.FAILED)
    assert one.statistics().reason
    assert one.statistics().failures >= 1
    fails = False
    await until(lambda: one.statistics().state is RecorderState.RECORDING)
    one.connected(2, T0 + 200, "acme", "spot", "wss://acme.example")
    received(one, 2, 100, 201)
    await one.stop()
    bugs = bulkheads.bugs["recorder"] - before
    assert (bugs > 0) is not isinstance(failure, OSError)
    if bugs:
        expected_bugs["recorder"] = bugs
    problems = Problems()
    payloads = [line.payload for line in lines_of(tmp_path, problems) if isinstance(line, Recv)]
    assert payloads[-100:] == [b"%d" % number for number in range(201, 301)]
    statistics = one.statistics()
    assert statistics.state is RecorderState.STOPPED
    assert statistics.bytes_buffered == 0
    if place == "writing":
        assert len(payloads) == 200


@pytest.mark.rows("P3")
async def test_a_full_disk_fails_the_recorder_until_there_is_space(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as folder:
        await fill_the_disk(folder)


async def fill_the_disk(folder: Path) -> None:
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    one = recorder(folder, retry_s=0.2)
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://a")
    noise = random.Random(3)
    for at in range(200):  # 4 MB that don't compress below half
        one.received(1, T0 + at, noise.randbytes(20_000).hex().encode())
    await until(lambda: one.statistics().state is RecorderState.FAILED)
    assert "No space left" in one.statistics().reason
    assert one.statistics().failures > 0
    ballast.unlink()
    await until(lambda: one.statistics().state is RecorderState.RECORDING)
    one.received(1, T0 + 200, b"after")
    await one.stop()
    problems = Problems()
    received = [line for line in lines_of(folder, problems) if isinstance(line, Recv)]
    assert not problems.count
    assert len(received) == 201  # the buffer held them all meanwhile
    assert one.statistics().lines_lost == 0
