"""What a refill takes, refuses and tells."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from ingestor.app.refill import RefillReport, refill, refill_text, refillable
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError


def config() -> Config:
    feed = {"venue": "simulated", "symbols": ["*"], "url": "ws://127.0.0.1:9"}
    return Config.model_validate({"feeds": [feed]})


@pytest.mark.parametrize("kind", ["book", "orders", "trade"])
def test_kinds_that_are_not_filled(kind: str) -> None:
    with pytest.raises(ConfigError, match="can be filled; kinds are trades, quotes"):
        refillable([kind])


def test_the_report() -> None:
    report = RefillReport()
    assert "nothing is missing" in refill_text(report, dry_run=False)
    report.ranges, report.filled, report.sessions = 3, 2, {"s": 3}
    report.rows["trades"] += 5
    assert report.to_json()["rows"] == {"trades": 5}
    assert report.to_json()["open"] == 1
    text = refill_text(report, dry_run=False)
    assert "5 trades" in text
    assert "2 of 3 GAPs" in text
    assert "run it again later" in text


async def test_a_folder_without_a_recording(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recording"):
        await refill(config(), tmp_path)
    with pytest.raises(ConfigError, match="no folder of recordings"):
        await refill(config(), tmp_path / "absent")


async def test_one_refill_of_a_folder_at_a_time(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError, match="another refill of this folder runs"):
            await refill(config(), tmp_path)
    finally:
        os.close(other)
