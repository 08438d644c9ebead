"""Recordings made to do harm: bombs, endless lines, links, devices. Each costs little."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard

from ingestor.model.errors import RecordingError
from ingestor.recording.files import create_exclusively, regular_files
from ingestor.recording.format import LINE_BYTES_MAX, parse_line, parse_lines
from ingestor.recording.layout import INDEX_FRAMES_MAX, Index, Indexed, index_path, parse_index
from ingestor.recording.reader import (
    Problems,
    chain_lines,
    find_chains,
    find_files,
    read_lines,
)
from ingestor.recording.repair import repair, repair_all
from ingestor.recording.segments import RecorderSettings, retain
from ingestor.recording.zstd_frames import PIECE_BYTES_MAX, pieces

MIB = 1 << 20
SESSION = "0123456789abcdef0123456789abcdef"
HEADER = (
    b'{"t":"header","format":1,"session":"%s","venue":"simulated","ts_ns":1,"n":0}\n'
    % SESSION.encode()
)
RECV = b'{"t":"recv","ts_ns":2,"conn":1,"n":0,"data":"'
GROWTH_MAX = 64 * MIB

# Prints the growth of the process's peak of memory while it does some things to a path, each after
# the other.
MEASURED = """
import sys
from pathlib import Path
import numpy, zstandard, ingestor.history, ingestor.sources.replay.compact
import ingestor.testbed.emulator.playback, ingestor.recording.parquet
import ingestor.sinks.digest, feeds.simulated
from ingestor.recording.repair import repair_all
path = Path(sys.argv[1])
def peak():  # not ru_maxrss, which has the parent's peak in it
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
before = peak()
for what in sys.argv[2:]:
    try:
        if what == "replay":
            for result in Replay(ReplayOptions((path,))).results(): pass
        elif what == "repair":
            print(repair_all(path)[0].error)
        elif what == "compact":
            ingestor.sources.replay.compact.compact(path)
        elif what == "serve":
            ingestor.testbed.emulator.playback.survey([path])
        elif what == "history":
            for batch in ingestor.history.open(path): pass
    except Exception as failure:
        if type(failure).__module__ != "ingestor.model.errors": raise
        print(failure)
print(peak() - before)
"""


def segment(root: Path, parts: Iterable[bytes], *, plain: bool = True) -> Path:
    """Write a segment. plain: the parts are text, to be compressed as one frame."""
    folder = root / "raw" / "venue=simulated" / "date=2026-11-29" / "hour=16"
    folder.mkdir(parents=True)
    path = folder / f"{SESSION}-000000000000.jsonl.zst"
    stream = zstandard.ZstdCompressor(level=3).compressobj()
    with path.open("wb") as file:
        for part in parts:
            file.write(stream.compress(part) if plain else part)
        if plain:
            file.write(stream.flush())
    return path


def repeated(part: bytes, count: int, first: bytes = b"") -> Iterator[bytes]:
    yield first
    for _ in range(count):
        yield part


def frame(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(text)


BOMBS: dict[str, Callable[[], Iterable[bytes]]] = {
    "zeros": lambda: repeated(bytes(MIB), 80),
    "endless line": lambda: repeated(b"a" * MIB, 80, HEADER + RECV),
    "newlines": lambda: repeated(b"\n" * MIB, 80, HEADER),
    "garbage": lambda: repeated(b"x\n" * (MIB // 2), 8, HEADER),
    "wide characters": lambda: [HEADER, RECV, b"a" * (11 * MIB), "\U0001f600".encode(), b'"}\n'],
    "many dicts": lambda: [
        HEADER,
        b'{"t":"decided","ts_ns":1,"decision":{"a":[' + b'{"a":1},' * MIB + b"1]}}\n",
    ],
    "deep": lambda: [
        HEADER,
        b'{"t":"decided","ts_ns":1,"decision":{"a":' + b"[" * MIB + b"]" * MIB + b"}}\n",
    ],
    "base64": lambda: [
        HEADER,
        b'{"t":"recv","ts_ns":1,"conn":1,"n":0,"b64":"' + b"AAAA" * (16 * MIB) + b'"}\n',
    ],
}


def growth(path: Path, *what: str) -> int:
    """Return by how many bytes memory grew; each thing says a line at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), *what],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *said, kib = done.stdout.splitlines()
    assert len(said) <= len(what)
    return int(kib) << 10


EVERYWHERE = {"zeros", "endless line"}  # the other bombs are tried on what reads and what repairs


@pytest.mark.rows("I13")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_within_64_mib(tmp_path: Path, bomb: str) -> None:
    segment(tmp_path, BOMBS[bomb]())
    more = ("serve", "compact", "history") if bomb in EVERYWHERE else ()
    assert growth(tmp_path, "replay", *more, "repair") <= GROWTH_MAX


def test_repair_names_the_file_and_the_reason_in_one_line(tmp_path: Path) -> None:
    path = segment(tmp_path, BOMBS["zeros"]())
    before = path.read_bytes()
    [report] = repair_all(tmp_path)
    assert report.error.startswith(str(path))
    assert "bytes hold no line of a recording" in report.error
    assert "\n" not in report.error
    assert path.read_bytes() == before


@pytest.mark.parametrize("whole", [False, True])
def test_a_window_above_the_limit_is_refused_and_the_file_kept(tmp_path: Path, whole: bool) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    text = HEADER + b"".join(RECV + b'%d"}\n' % number for number in range(200_000))
    large = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = large.compress(text) + large.flush()
    path = segment(tmp_path, [frame(HEADER) if whole else b"", content], plain=False)
    before = path.read_bytes()
    [report] = repair_all(tmp_path)
    assert "window" in report.error
    assert path.read_bytes() == before
    problems = Problems()
    assert len([line for lines in read_lines(path, problems) for line in lines]) == whole
    assert [problem.what for problem in problems.kept] == [report.error.split(": ", 1)[1]]


def test_pieces_are_small_however_well_they_compress(tmp_path: Path) -> None:
    path = segment(tmp_path, repeated(bytes(MIB), 16))
    sizes = [len(piece.plain) for piece in pieces(path)]
    assert sum(sizes) == 16 * MIB
    assert max(sizes) <= PIECE_BYTES_MAX


def test_every_kind_of_frame_is_read_whole(tmp_path: Path) -> None:
    """With and without checksum, content size, compressed, raw and repeated blocks, skippable."""
    texts = [b"", b"a", os.urandom(300_000), bytes(400_000), b"abc" * 100_000, HEADER]
    content = b"".join(
        zstandard.ZstdCompressor(
            level=1, write_checksum=checksum, write_content_size=content_size
        ).compress(text)
        for text in texts
        for checksum in (False, True)
        for content_size in (False, True)
    )
    skippable = b"\x5a\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"
    path = segment(tmp_path, [skippable, content, skippable], plain=False)
    read = list(pieces(path))
    assert b"".join(piece.plain for piece in read) == b"".join(
        text for text in texts for _ in range(4)
    )
    assert not [piece for piece in read if piece.broken]
    assert read[-1].end == path.stat().st_size


def test_many_tiny_frames_make_a_small_index(tmp_path: Path) -> None:
    index = Index()
    for number in range(5 * INDEX_FRAMES_MAX):
        index.add(Indexed(number, number, number, number))
    assert len(index.frames) <= INDEX_FRAMES_MAX
    assert index.frames[0].ts_ns == 0
    times = [indexed.ts_ns for indexed in index.frames]
    assert times == sorted(times)


def test_thousands_of_broken_frames_are_refused(tmp_path: Path) -> None:
    path = segment(tmp_path, [frame(HEADER), b"\x28\xb5\x2f\xfd\x00" * 100_000], plain=False)
    with pytest.raises(RecordingError, match="broken zstd frames"):
        repair(path)
    problems = Problems()
    assert sum(len(lines) for lines in read_lines(path, problems)) == 1
    assert len(problems.kept) == 100


def test_more_problems_than_a_hundred_are_counted_not_shown(tmp_path: Path) -> None:
    shown: list[RecordingError] = []
    problems = Problems(tell=shown.append)
    for offset in range(1_000):
        problems.add(tmp_path, offset, "odd")
    assert (problems.count, len(problems.kept), len(shown)) == (1_000, 100, 101)
    assert "more problems" in str(shown[-1])


@pytest.mark.rows("I13")
@pytest.mark.parametrize("gap", [b"\n", b'{"t":"recv"\n', RECV + b'x"}\n'])
def test_a_line_too_long_costs_itself_alone(tmp_path: Path, gap: bytes) -> None:
    long = RECV + b"a" * (LINE_BYTES_MAX + 1) + b'"}\n'
    path = segment(tmp_path, [HEADER, RECV + b'1"}\n', long, gap, RECV + b'2"}\n'])
    problems = Problems()
    lines = [line for lines in read_lines(path, problems) for line in lines]
    payloads = [getattr(line, "data", None) for line in lines]
    assert payloads[1] == "1"
    assert payloads[-1] == "2"
    assert "bytes" in problems.kept[0].what
    [report] = repair_all(tmp_path)
    assert not report.changed
    assert not report.error


@pytest.mark.parametrize("kind", ["decided", "recv", "header"])
def test_deep_json_is_a_line_that_cannot_be_read(kind: str) -> None:
    deep = b'{"t":"%s","ts_ns":1,"conn":1,"decision":{"x":%s}}' % (
        kind.encode(),
        b"[" * 100_000 + b"]" * 100_000,
    )
    for parse in (parse_line, parse_lines):
        with pytest.raises(ValueError, match="recursion"):
            parse(deep)
    with pytest.raises(ValueError, match="recursion"):
        parse_index(b'{"x":' + b"[" * 100_000)


@pytest.mark.parametrize(
    "index",
    [
        b'{"frames":[[0,0,0,0],[5,0,-7,0]],"size":%d,"last_ts_ns":9}',
        b'{"frames":[[0,0,0,0],[5,0,3,0]],"size":%d,"last_ts_ns":9}',
        b'{"frames":[[0,0,0,0],[5,0,99999999999999,0]],"size":%d,"last_ts_ns":9}',
        b'{"frames":[' + b"[0,0,0,0]," * 500_000 + b'[0,0,0,0]],"size":%d}',
    ],
)
def test_an_index_that_lies_is_not_followed(tmp_path: Path, index: bytes) -> None:
    path = segment(tmp_path, [HEADER, RECV + b'1"}\n'])
    index_path(path).write_bytes(index % path.stat().st_size)
    problems = Problems()
    [chain] = find_chains([path], problems)
    read = [line for _, lines in chain_lines(chain, problems, start_ns=7) for line in lines]
    assert len(read) == 2
    assert not problems.count


def odd_files(folder: Path) -> dict[str, Path]:
    """Put things that are no regular files into a folder, under names of segments."""
    made = {
        name: folder / f"{SESSION}-00000000000{number}.jsonl.zst"
        for number, name in enumerate(("pipe", "device", "outside", "nowhere", "loop", "socket"), 1)
    }
    os.mkfifo(made["pipe"])
    made["device"].symlink_to("/dev/zero")
    outside = folder.parents[4] / "outside.jsonl.zst"
    outside.write_bytes(frame(HEADER))
    made["outside"].symlink_to(outside)
    made["nowhere"].symlink_to("/nowhere/at/all")
    made["loop"].symlink_to(made["loop"])
    return made


@pytest.mark.rows("I13")
def test_links_devices_and_pipes_in_a_folder_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    path = segment(root, [HEADER, RECV + b'1"}\n'])
    made = odd_files(path.parent)
    inside = path.with_name(f"{SESSION}-000000000009.jsonl.zst")
    inside.symlink_to(path)
    refused: dict[Path, str] = {}
    found = list(regular_files(root, lambda path, what: refused.update({path: what})))
    assert found == [path, inside]
    assert set(refused) == {made[name] for name in made if name != "socket"}
    assert refused[made["pipe"]] == "is a pipe, no regular file"
    assert refused[made["outside"]] == "is a link that leads out of the folder"
    reports = [report for report in repair_all(root) if report.error]
    assert {report.path for report in reports} == {str(path) for path in refused}
    assert all(report.error.startswith(report.path) for report in reports)
    problems = Problems()
    assert find_files([root], problems) == [path, inside]
    assert problems.count == len(refused)


@pytest.mark.rows("I13")
def test_compact_follows_no_link_to_a_device(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from ingestor.sources.replay.compact import compact

    root = tmp_path / "recordings"
    path = segment(root, [HEADER, RECV + b'1"}\n'])
    odd_files(path.parent)
    report = compact(root)
    assert report.problems.count >= 5
    assert report.units


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_a_path_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jsonl.zst"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    problems = Problems()
    assert list(read_lines(path, problems)) == []
    assert f"is a {kind}" in str(problems.kept[0])
    [report] = repair_all(path)
    assert f"is a {kind}" in report.error


def test_what_is_written_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted = tmp_path / "a.tmp"
    planted.symlink_to(victim)
    with create_exclusively(planted) as file:
        file.write(b"new")
    assert victim.read_text() == "precious"
    assert planted.read_bytes() == b"new"
    assert not planted.is_symlink()


def test_retention_removes_only_what_a_recorder_wrote(tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    path = segment(root, [HEADER])
    folder = path.parent
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / path.name).write_bytes(b"x")
    kept = [
        folder / "notes.jsonl.zst",
        folder / f"{SESSION}.jsonl.zst",
        root / "raw" / path.name,
        root / path.name,
        folder / f"{SESSION}-000000000001.jsonl.zst.inprogress",
        outside / path.name,
    ]
    for file in kept[:-1]:
        file.write_bytes(b"x")
    link = folder / f"{SESSION}-000000000002.jsonl.zst"
    link.symlink_to(kept[0])
    directory = folder / f"{SESSION}-000000000003.jsonl.zst"
    directory.mkdir()
    (root / "raw" / "venue=x" / "date=2026-11-29").mkdir(parents=True)
    (root / "raw" / "venue=x" / "date=2026-11-29" / "hour=01").symlink_to(outside)
    removed = retain(RecorderSettings(root, retention_bytes=0, retention_age_s=0.0), 4e9)
    assert removed == 1
    assert not path.exists()
    assert all(file.exists() for file in kept)
    assert link.is_symlink()
    assert directory.is_dir()
