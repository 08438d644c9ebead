"""ingestor.sources.replay.options: which options leave rows out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingestor.sources.replay.options import ReplayOptions

WHOLE = ReplayOptions((Path("recording"),))


@pytest.mark.parametrize(
    "more",
    [
        {"start_ns": 1},
        {"end_ns": 1},
        {"symbols": frozenset({"BTC-USD"})},
        {"channels": frozenset({"trades"})},
    ],
)
def test_what_leaves_rows_out_is_a_filter(more: dict[str, Any]) -> None:
    assert replace(WHOLE, **more).filters


def test_how_a_recording_is_read_is_none() -> None:
    assert not replace(WHOLE, venue="okx", market="spot", flush_rows=7, linger_ns=1).filters
