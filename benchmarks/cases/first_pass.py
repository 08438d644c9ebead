"""The first pass over recordings of others: `python -m benchmarks.cases.first_pass [FILE...]`.

Prints the share of a replay's CPU time that the pass takes which finds out what a recording
carries. Without files, one is made of trades, quotes and books of each venue that the benchmarks
know. A file is given as PATH:VENUE:MARKET. Where a small file's lines are kept for the second pass,
that pass gains what the first one spent on reading.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import zstandard

from benchmarks.harness.frames import SHAPES, START_MS
from ingestor.recording.format import Line, Recv, encode_lines
from ingestor.sources.replay import found_feeds
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.survey import Survey, survey

TURNS: Final = 5
FRAMES: Final = 60_000  # of each venue
_PLACES: Final = 3  # of a file on the command line: path, venue, market


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return a row for each venue: frames per CPU second, and the first pass's share."""
    with tempfile.TemporaryDirectory() as name:
        return [
            {"path": f"foreign {venue}", **share(path, venue, market, 2 if quick else TURNS)}
            for path, venue, market in _made(Path(name), FRAMES // 6 if quick else FRAMES)
        ]


def share(path: Path, venue: str, market: str, turns: int) -> dict[str, Any]:
    """Replay a file by turns as it is and with the result of the first pass given.

    Args:
        path: The recording.
        venue: Name of the venue.
        market: Name of the market.
        turns: How often; the best counts.
    """
    whole_s = known_s = float("inf")
    frames = 0
    for _ in range(turns):
        taken_s, frames, found = _replay(path, venue, market, None)
        whole_s = min(whole_s, taken_s)
        known_s = min(known_s, _replay(path, venue, market, found)[0])
    return {
        "per_s": round(frames / whole_s),
        "first_pass_share": round(max(1 - known_s / whole_s, 0.0), 3),
    }


def _replay(path: Path, venue: str, market: str, known: Survey | None) -> tuple[float, int, Survey]:
    """Return CPU seconds, frames, and the result of the first pass. known: it is not made."""
    found: list[Survey] = []

    def look(*given: Any, **more: Any) -> Survey:
        result = known or survey(*given, **more)
        found.append(result)
        return result

    with patch.object(found_feeds, "survey", look):
        begin_s = time.process_time()
        replay = Replay(ReplayOptions((path,), venue=venue, market=market))
        for _ in replay.results():
            pass
        taken_s = time.process_time() - begin_s
    return taken_s, sum(counts.frames for counts in replay.counts.values()), found[0]


def _made(folder: Path, count: int) -> Sequence[tuple[Path, str, str]]:
    """Write a recording of each venue, with frames of its kinds in turns."""
    files = []
    for venue, market in dict.fromkeys((shape.venue, shape.market) for shape in SHAPES):
        kinds = [shape for shape in SHAPES if (shape.venue, shape.market) == (venue, market)]
        frames = [shape.frames(count // len(kinds)) for shape in kinds]
        lines: list[Line] = [
            Recv(START_MS * 1_000_000 + at, 0, data=frame.decode())
            for at, frame in enumerate(
                frame for some in zip(*frames, strict=True) for frame in some
            )
        ]
        path = folder / f"{venue}.jsonl.zst"
        path.write_bytes(zstandard.compress(encode_lines(lines)))
        files.append((path, venue, market))
    return files


def _main() -> None:
    given = [argument.rsplit(":", 2) for argument in sys.argv[1:]]
    if any(len(parts) != _PLACES for parts in given):
        sys.exit("a file is given as PATH:VENUE:MARKET")
    rows = [
        {"path": Path(path).name, **share(Path(path), venue, market, TURNS)}
        for path, venue, market in given
    ] or measure()
    for row in rows:
        print(f"{row['path']:<48} {row['per_s']:>10,} frames/s {row['first_pass_share']:>7.1%}")


if __name__ == "__main__":
    _main()
