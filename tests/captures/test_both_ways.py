"""Every recorded capture gives the same rows with and without the compiled library."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.decode.frame_counts import FrameCounts
from ingestor.native import native
from ingestor.sinks.digest import Digest
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from tests.reference.reader import CAPTURES

pytestmark = [
    pytest.mark.captures,
    pytest.mark.skipif(native().library is None, reason=native().reason),
]
# Of these the texts are older than the shapes.
NO_SHAPES = {"okx"}


def replayed(captures: Path, name: str) -> tuple[str, dict[tuple[str, str], FrameCounts]]:
    venue, market = CAPTURES[name]
    path = captures / name
    replay = Replay(ReplayOptions((path,), venue=venue, market=market))
    digest = Digest()
    for result in replay.results():
        for batch in result.batches:
            digest.add(batch)
    return digest.hexdigest(), replay.counts


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_a_replay_has_one_digest(captures: Path, name: str, request: pytest.FixtureRequest) -> None:
    compiled, counts = replayed(captures, name)
    taken = sum(sum(one.by_shape().values()) for one in counts.values())
    assert bool(taken) == (CAPTURES[name][0] not in NO_SHAPES)
    request.getfixturevalue("python_way")
    in_python, same_counts = replayed(captures, name)
    assert not any(one.by_shape() for one in same_counts.values())
    assert (compiled, counts) == (in_python, same_counts)
