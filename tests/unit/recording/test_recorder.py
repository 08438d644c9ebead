"""The recorder, the reader and the repair, on real files."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from operator import sub
from pathlib import Path

import pytest
import zstandard

from ingestor.adapter.contract import Subscription
from ingestor.model.errors import RecordingError
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.recording.format import (
    HOUR_NS,
    Connect,
    Decided,
    Disconnect,
    Header,
    Http,
    Line,
    Recv,
    Send,
    encode_lines,
)
from ingestor.recording.layout import index_path, parse_index, parse_segment_path
from ingestor.recording.reader import Problems, chain_lines, find_chains, merge
from ingestor.recording.recorder import Recorder
from ingestor.recording.repair import repair, repair_all
from ingestor.recording.segments import FRAME_BYTES_MAX, RecorderSettings
from ingestor.recording.writer_thread import ENTRY_BYTES, Entry, FrameRun, RecorderState, take_chunk

T0 = 1_790_000_000_000_000_000 // HOUR_NS * HOUR_NS + 60_000_000_000
SUBSCRIPTIONS = [Subscription(0, "AAAUSD", "trades", "aaausd@trade")]


def table() -> InstrumentTable:
    return InstrumentTable(
        instrument("acme", "spot", f"{one}USD", f"{one}-USD", one, "USD", "0.01", "0.001")
        for one in ("AAA", "BBB")
    )


def recorder(path: Path, **more: object) -> Recorder:
    settings = RecorderSettings(path, **more)  # type: ignore[arg-type]
    return Recorder(settings, "s1", table(), lambda connection: SUBSCRIPTIONS)


def lines_of(path: Path, problems: Problems | None = None) -> list[Line]:
    problems = problems or Problems()
    chains = find_chains([path], problems)
    return [
        line
        for _, _, lines in merge((chain, chain_lines(chain, problems)) for chain in chains)
        for line in lines
    ]


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "not in time"
        await asyncio.sleep(0.01)


async def test_everything_heard_is_read_back(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    one.start()
    one.fetched(None, T0, "acme", "spot", "https://acme.example/instruments?x=1", b'{"a":1}')
    one.connected(7, T0 + 1, "acme", "spot", "wss://acme.example")
    one.sent(7, T0 + 2, b'{"op":"subscribe"}')
    payloads = [
        b'{"p":"1.0","u":"\xc3\xa9\\u00e9"}',
        b"\xff\x00binary",
        b"",
        b'{"q":"},{\\"t\\":"}',
    ]
    for at, payload in enumerate(payloads):
        one.received(7, T0 + 10 + at, payload)
    one.record_decision(7, T0 + 20, {"action": "pause"})
    one.disconnected(7, T0 + 30, "closed by the venue")
    await one.stop()

    problems = Problems()
    header, *lines = lines_of(tmp_path, problems)
    assert not problems.count
    assert isinstance(header, Header)
    assert (header.format, header.session, header.venue, header.n) == (1, "s1", "acme", 0)
    assert [line.n for line in lines] == list(range(len(lines)))
    http, connect, sent, *received, record_decision, closed = lines
    assert isinstance(http, Http)
    assert (http.payload, http.market, http.conn) == (b'{"a":1}', "spot", None)
    assert isinstance(connect, Connect)
    assert connect.subscriptions == [("AAAUSD", "trades", "aaausd@trade")]
    assert connect.instruments == [table()[0].to_json()]
    assert isinstance(sent, Send)
    assert sent.payload == b'{"op":"subscribe"}'
    assert [line.payload for line in received if isinstance(line, Recv)] == payloads
    assert [line.ts_ns for line in received] == [T0 + 10 + at for at in range(4)]
    assert isinstance(record_decision, Decided)
    assert record_decision.decision == {"action": "pause"}
    assert isinstance(closed, Disconnect)
    assert closed.reason == "closed by the venue"
    statistics = one.statistics()
    assert statistics.state is RecorderState.STOPPED
    assert (statistics.lines_written, statistics.lines_lost) == (len(lines), 0)


async def test_what_comes_within_a_read_stays_in_its_place(tmp_path: Path) -> None:
    """Frames of a read share a time; other lines and other connections may stand between them."""
    one = recorder(tmp_path)
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://a")
    one.connected(2, T0, "acme", "spot", "wss://b")
    for connection, payload in [(1, b"a"), (1, b"\xff"), (2, b"c"), (1, b"d")]:
        one.received(connection, T0, payload)
    one.sent(1, T0 + 5, b"pong")
    one.received(1, T0, b"e")
    one.record_decision(1, T0 + 6, {"action": "pause"})
    one.received(1, T0, b"f")
    await asyncio.sleep(0.2)  # the thread takes what is there of a read that goes on
    one.received(1, T0, b"g")
    one.received(1, T0 + 7, b"h")
    await one.stop()
    found = [
        b"pause" if isinstance(line, Decided) else line.payload
        for line in lines_of(tmp_path)
        if isinstance(line, Recv | Send | Decided)
    ]
    assert found == [b"a", b"\xff", b"c", b"d", b"pong", b"e", b"pause", b"f", b"g", b"h"]
    assert one.statistics().bytes_buffered == 0


def test_an_open_run_is_taken_bit_by_bit() -> None:
    run = FrameRun(1, T0, [b"a", b"b"])
    entries: deque[Entry] = deque([run])
    assert take_chunk(entries) == ([(1, T0, [b"a", b"b"])], 0)
    assert take_chunk(entries) == ([], 0)
    run.payloads.append(b"c")
    run.size, run.is_closed = 500, True
    after = Disconnect(T0, 1, "")
    entries.append(after)
    assert take_chunk(entries) == ([(1, T0, [b"c"]), after], 500)
    assert not entries


def test_what_follows_a_large_run_that_was_taken_while_it_was_open() -> None:
    run = FrameRun(1, T0, [bytes(1 << 20)])
    entries: deque[Entry] = deque([run])
    take_chunk(entries)
    run.size, run.is_closed = 1 << 20, True
    after = Disconnect(T0, 1, "")
    entries.append(after)
    assert take_chunk(entries) == ([after], 1 << 20)


async def test_segments_end_with_the_hour_and_say_what_is_open(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://a")
    one.connected(2, T0, "acme", "spot", "wss://b")
    one.connected(3, T0, "other", "spot", "wss://c")
    one.received(1, T0 + 1, b"1")
    one.disconnected(2, T0 + 2, "gone")
    one.received(1, T0 + HOUR_NS, b"2")
    one.received(1, T0 + HOUR_NS - 1, b"late")
    one.received(3, T0 + HOUR_NS, b"3")
    await one.stop()

    names = sorted(tmp_path.rglob("*.jsonl.zst"))
    parsed = [parse_segment_path(path) for path in names]
    hours = [(one.venue, one.hour - T0 // HOUR_NS) for one in parsed if one is not None]
    assert hours == [("acme", 0), ("acme", 1), ("other", 0), ("other", 1)]
    second = lines_of(names[1])
    header = second[0]
    assert isinstance(header, Header)
    assert [(one.conn, one.url) for one in header.connections] == [(1, "wss://a")]
    assert header.instruments == [table()[0].to_json()]
    problems = Problems()
    every = lines_of(tmp_path, problems)
    assert not problems.count
    assert [line.payload for line in every if isinstance(line, Recv)] == [b"1", b"2", b"late", b"3"]


async def test_segments_end_by_size_and_old_ones_go(tmp_path: Path) -> None:
    one = recorder(tmp_path, segment_bytes=200_000, retention_bytes=700_000, fsync="frame")
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://a")
    noise = random.Random(5)
    for at in range(150):
        one.received(1, T0 + at, noise.randbytes(20_000).hex().encode())
    await one.stop()
    statistics = one.statistics()
    segments = sorted(tmp_path.rglob("*.jsonl.zst"))
    assert statistics.segments_finished >= 4
    assert statistics.segments_removed == statistics.segments_finished - len(segments) > 0
    assert sum(path.stat().st_size for path in segments) <= 700_000
    assert len(list(tmp_path.rglob("*.index"))) == len(segments)
    kept = [line for line in lines_of(tmp_path) if isinstance(line, Recv)]
    assert kept[-1].ts_ns == T0 + 149
    for path in segments:
        starts = [one.plain for one in parse_index(index_path(path).read_bytes()).frames]
        assert max(map(sub, starts[1:], starts), default=0) <= FRAME_BYTES_MAX


async def test_the_index_leads_to_a_time(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://a")
    for at in range(6):
        one.received(1, T0 + at * 1_000, b"x" * 1_200_000)
        await until(lambda: one.statistics().bytes_buffered == 0)
    await one.stop()
    (path,) = tmp_path.rglob("*.jsonl.zst")
    index = parse_index(index_path(path).read_bytes())
    assert index.size == path.stat().st_size
    assert [frame.ts_ns - T0 for frame in index.frames] == [0, 0, *range(1_000, 6_000, 1_000)]
    problems = Problems()
    (chain,) = find_chains([path], problems)
    found = [
        line for _, lines in chain_lines(chain, problems, start_ns=T0 + 3_500) for line in lines
    ]
    assert [line.ts_ns - T0 for line in found] == [3_000, 4_000, 5_000]
    none = [
        line for _, lines in chain_lines(chain, problems, start_ns=T0 + 9_000) for line in lines
    ]
    assert not none
    assert not problems.count


async def test_a_full_buffer_loses_counts_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.write_text("a file where the folder should be: every write fails")
    one = recorder(folder, buffer_bytes=100_000, retry_s=0.05)
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://a")
    one.received(1, T0, b"first")
    await until(lambda: one.statistics().state is RecorderState.FAILED, 5.0)
    for at in range(1, 301):
        one.received(1, T0 + at, b"x" * 880)
    statistics = one.statistics()
    assert statistics.bytes_buffered <= 100_000 + 880 + 2 * ENTRY_BYTES  # one more than its limit
    assert statistics.lines_lost > 150
    assert "recordings" in statistics.reason
    folder.unlink()
    await until(lambda: one.statistics().state is RecorderState.RECORDING)
    await until(lambda: one.statistics().bytes_buffered == 0)
    one.received(1, T0 + 500, b"last")
    lost = one.statistics().lines_lost
    await one.stop()

    problems = Problems()
    lines = lines_of(tmp_path, problems)
    received = [line for line in lines if isinstance(line, Recv)]
    (notice,) = [line for line in lines if isinstance(line, Decided)]
    assert len(received) + lost == 302
    assert notice.decision["action"] == "recorder_lost"
    assert notice.decision["lines"] == lost
    assert notice.decision["from_ns"] == received[-2].ts_ns + 1
    assert notice.decision["to_ns"] == T0 + 300
    assert [f"{lost} lines are missing" in str(problem) for problem in problems.kept] == [True]
    assert received[-1].payload == b"last"


WRITER = """
import asyncio, sys, time
from pathlib import Path
from tests.unit.recording.test_recorder import recorder
async def main():
    one = recorder(Path(sys.argv[1]))
    one.start()
    one.connected(1, time.time_ns(), "acme", "spot", "wss://a")
    print("ready", flush=True)
    n = 0
    while True:
        for _ in range(50):
            one.received(1, time.time_ns(), b'{"i":%d,"pad":"%s"}' % (n, b"abcdefgh" * (n % 40)))
            n += 1
        await asyncio.sleep(0.005)
asyncio.run(main())
"""


@pytest.mark.rows("P1")
def test_kills_lose_at_most_the_last_frame_each(tmp_path: Path) -> None:
    check_kills(tmp_path, batches=1, at_once=3)


@pytest.mark.long(minutes=1)
@pytest.mark.rows("P1")
def test_twenty_kills_lose_at_most_the_last_frame_each(tmp_path: Path) -> None:
    check_kills(tmp_path, batches=4, at_once=5)


def check_kills(tmp_path: Path, *, batches: int, at_once: int) -> None:
    noise = random.Random(11)
    for batch in range(batches):
        folders = [tmp_path / f"{batch}-{number}" for number in range(at_once)]
        for folder, killed_ns in kill_writers(folders, noise):
            assert_readable(folder, killed_ns)


def kill_writers(folders: list[Path], noise: random.Random) -> list[tuple[Path, int]]:
    """Record into each folder by a process of its own; kill each at a moment of its own."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)],
            cwd=root,
            stdout=subprocess.PIPE,
            env=environment,
        )
        for folder in folders
    ]
    killed = []
    for process in processes:
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
    time.sleep(1.5)  # so that the first has written a frame
    for folder, process in zip(folders, processes, strict=True):
        time.sleep(noise.uniform(0.0, 0.5))
        killed.append((folder, time.time_ns()))
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()
    return killed


def assert_readable(folder: Path, killed_ns: int) -> None:
    began_s = time.monotonic()
    (report,) = repair_all(folder)
    assert time.monotonic() - began_s < 5.0
    assert not report.error
    assert killed_ns - report.last_ts_ns < 1_000_000_000
    problems = Problems()
    received = [line for line in lines_of(folder, problems) if isinstance(line, Recv)]
    assert not problems.count
    assert [line.n for line in received] == list(range(1, len(received) + 1))
    assert received[-1].ts_ns == report.last_ts_ns
    assert not list(folder.rglob("*.inprogress"))


def frames(count: int, lines_each: int = 10) -> list[bytes]:
    """zstd frames of a segment: a header, then lines numbered on."""
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    header = Header(venue="acme", format=1, session="s1", ts_ns=T0, n=0)
    found = []
    for number in range(count):
        first = number * lines_each
        lines: list[Line] = [
            Recv(T0 + n, 1, f'{{"value": {n}}}', None, n) for n in range(first, first + lines_each)
        ]
        found.append(compressor.compress(encode_lines([header, *lines] if not number else lines)))
    return found


def segment(folder: Path, content: bytes, suffix: str = "") -> Path:
    path = folder / f"s1-000000000000.jsonl.zst{suffix}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("cut", [1, 2, 20, 60])
def test_repair_keeps_every_complete_frame(tmp_path: Path, cut: int) -> None:
    parts = frames(5)
    path = segment(tmp_path, b"".join(parts)[:-cut], ".inprogress")
    report = repair(path)
    kept = sum(map(len, parts[:4]))
    assert report.changed
    assert not path.exists()
    assert report.cuts[0].offset == kept
    assert report.cuts[0].size == len(parts[4]) - cut == report.bytes_cut
    assert "within a zstd frame" in report.cuts[0].reason
    problems = Problems()
    lines = lines_of(Path(report.path), problems)
    assert not problems.count
    assert len(lines) == report.lines >= 41
    assert Path(report.path).read_bytes()[:kept] == b"".join(parts[:4])
    assert not repair(Path(report.path)).changed


def test_repair_goes_on_after_a_broken_frame(tmp_path: Path) -> None:
    parts = frames(5)
    parts[2] = parts[2][:-6] + b"\0\0" + parts[2][-4:]
    path = segment(tmp_path, b"".join(parts))
    problems = Problems()
    before = [line.n for line in lines_of(path, problems)]
    assert {n // 10 for n in before[1:]} >= {0, 1, 3, 4}
    assert problems.count == 2  # the broken frame, and the numbers that are missing
    assert "repair" in str(problems.kept[0])
    assert "10 lines are missing" in str(problems.kept[1])
    report = repair(path)
    assert [cut.offset for cut in report.cuts] == [len(parts[0]) + len(parts[1])]
    assert report.frames == 4
    index = parse_index(index_path(path).read_bytes())
    assert [frame.n for frame in index.frames] == [0, 10, 30, 40]
    assert index.size == path.stat().st_size


def test_repair_leaves_whole_and_foreign_files_alone(tmp_path: Path) -> None:
    whole = segment(tmp_path, b"".join(frames(3)))
    content = whole.read_bytes()
    assert repair(whole).changed is False
    assert whole.read_bytes() == content
    foreign = tmp_path / "photo.jsonl.zst"
    foreign.write_bytes(b"\x89PNG")
    with pytest.raises(RecordingError, match="no zstd file"):
        repair(foreign)
    by_path = {report.path: report for report in repair_all(tmp_path)}
    assert by_path[str(foreign)].error
    assert not by_path[str(whole)].error


async def test_repair_keeps_off_a_file_that_is_being_written(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    one.start()
    one.connected(1, T0, "acme", "spot", "wss://a")
    await until(lambda: one.statistics().lines_written > 0)
    (path,) = tmp_path.rglob("*.inprogress")
    with pytest.raises(RecordingError, match="being written"):
        repair(path)
    await one.stop()


def test_a_chunk_without_any_good_line_is_passed_over(tmp_path: Path) -> None:
    parts = frames(3)
    parts.insert(1, zstandard.compress(b"nonsense\n" * 3))
    problems = Problems()
    lines = lines_of(segment(tmp_path, b"".join(parts)), problems)
    assert len(lines) == 31
    assert problems.count == 3


def test_repair_of_an_empty_file_removes_it(tmp_path: Path) -> None:
    report = repair(segment(tmp_path, b"", ".inprogress"))
    assert (report.changed, report.lines, report.path) == (True, 0, "")
    assert not list(tmp_path.iterdir())
