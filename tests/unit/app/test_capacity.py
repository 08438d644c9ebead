"""Cores, memory and volumes follow from the plan, the rates and the figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingestor.app.capacity import (
    BINARY,
    GIB,
    JSON,
    capacity_of,
    capacity_text,
    measured,
    parse_rates,
)
from ingestor.cli.plan import offline_plan
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError

BENCHMARKS = Path(__file__).parents[3] / "docs" / "benchmarks.md"


def config_of(symbols: int, tmp_path: Path, **sections: object) -> Config:
    feed = {"venue": "binance", "symbols": [f"S{number}USDT" for number in range(symbols)]}
    return Config.model_validate(
        {"feeds": [feed], "catalogue": {"cache_dir": tmp_path}, "kafka": {}} | sections
    )


async def test_a_thousand_symbols(tmp_path: Path) -> None:
    config = config_of(1_000, tmp_path)
    plan = (await offline_plan(config, "")).plan
    found = capacity_of(plan, config, JSON, {}, 5.0)
    assert found.streams == {"trades": 1_000, "quotes": 1_000, "book": 1_000}
    assert found.messages_per_s == pytest.approx(22_000)
    assert 0.2 < found.cores < found.peak_cores < 2
    assert found.workers == 3
    assert found.kafka_bytes_per_day == pytest.approx(86_400 * 1e3 * (120 + 450 + 1_500))
    assert found.recording_bytes_per_day == 0
    text = capacity_text(found, 5.0)
    assert "workers      3" in text
    assert "recording    none" in text


async def test_what_is_said_is_taken(tmp_path: Path) -> None:
    small, large = config_of(10, tmp_path), config_of(10, tmp_path, recorder={"path": tmp_path})
    plan = (await offline_plan(small, "")).plan
    calm = capacity_of(plan, small, JSON, {"trades": 0.0, "quotes": 0.0, "book": 0.0}, 1.0)
    assert calm.cores == pytest.approx(JSON.base_cores)
    busy = capacity_of(plan, small, JSON, {"trades": 1_000.0}, 1.0)
    kept = capacity_of(plan, large, JSON, {"trades": 1_000.0}, 1.0)
    lean = capacity_of(plan, small, BINARY, {"trades": 1_000.0}, 1.0)
    assert lean.cores < busy.cores < kept.cores
    assert lean.kafka_bytes_per_day < busy.kafka_bytes_per_day
    assert kept.memory_bytes > busy.memory_bytes
    assert kept.recording_bytes_per_day > 60 * GIB


def test_the_figures_are_those_of_the_benchmarks() -> None:
    """Within a factor of two: they are measured anew on other days and machines."""
    shown = re.findall(r"`(\w+)` ([\d,.]+)", BENCHMARKS.read_text())
    headline = {name: float(number.replace(",", "").rstrip(".")) for name, number in shown}
    for encoding, known in (("json", JSON), ("binary", BINARY)):
        assert f"throughput_trades_per_cpu_s_{encoding}" in headline
        fresh = measured(encoding, headline)
        for name in ("trade_ns", "quote_ns", "level_ns"):
            ratio = getattr(fresh, name) / getattr(known, name)
            assert 0.5 <= ratio <= 2, (encoding, name, ratio)


def test_rates() -> None:
    assert parse_rates(["trades=2", "book=0.5"]) == {"trades": 2.0, "book": 0.5}
    for text in ("trades", "trades=x", "trades=-1", "trades=inf"):
        with pytest.raises(ConfigError, match="is no CHANNEL=MESSAGES_A_SECOND"):
            parse_rates([text])
