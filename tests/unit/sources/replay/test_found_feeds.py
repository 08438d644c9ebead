"""ingestor.sources.replay.found_feeds: lines of recordings of others are read but once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.recording.format import Line, Recv, encode_lines
from ingestor.recording.reader import KeptLines, Problems
from ingestor.sources.replay import found_feeds
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from tests.unit.sources.replay.test_survey import T0, trade


@pytest.mark.parametrize("kept_max", [0, 20_000, 1 << 20])
def test_lines_are_read_twice_only_where_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_max: int
) -> None:
    lines = [Recv(T0 + at, 0, data=trade("A", at)) for at in range(1, 400)]
    path = tmp_path / "some.jsonl"
    path.write_bytes(encode_lines(lines) + b"no line\n" + encode_lines(lines[-1:]))
    kept: list[bool] = []

    def take_note(self: KeptLines, at: Path, told: Problems) -> Iterator[list[Line]]:
        kept.append(True)
        return take(self, at, told)

    take = KeptLines.take
    monkeypatch.setattr(KeptLines, "take", take_note)
    monkeypatch.setattr(found_feeds, "_KEPT_BYTES_MAX", kept_max)
    problems = Problems()
    replay = Replay(ReplayOptions((path,), venue="simulated"), problems=problems)
    found = audit(replay)
    assert found["rows"]["trade"] == 400
    assert kept == [True] * (kept_max > 100_000)
    assert problems.count == 1, "what can't be read is told once"
