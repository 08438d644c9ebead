"""ingestor.config.changes: what differs, and what a running process can follow."""

from __future__ import annotations

from typing import Any

import pytest

from ingestor.config.changes import FOLLOWED, changed_settings, check_followed
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError

FEED = {"venue": "okx", "symbols": ["BTC-USDT"]}


def config(**sections: Any) -> Config:
    return Config.model_validate({"feeds": [FEED], **sections})


def test_nothing_differs_between_equal_configurations() -> None:
    assert changed_settings(config(), config()) == []


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"feeds": [FEED, FEED | {"market": "swap"}]}, ["feeds"]),
        ({"feeds": [FEED | {"depth": 5}]}, ["feeds"]),
        ({"log": {"level": "debug"}}, ["log.level"]),
        ({"limits": {"connections_max": 9}}, ["limits.connections_max"]),
    ],
)
def test_what_a_running_process_follows(sections: dict[str, Any], names: list[str]) -> None:
    assert check_followed(config(), config(**sections), "") == names
    assert all(name.startswith(FOLLOWED) for name in names)


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"kafka": {"encoding": "binary"}}, "kafka.encoding"),
        ({"kafka": {"sasl_password": "hunter22"}}, "kafka.sasl_password"),
        ({"http": {"port": 1}, "batch": {"rows_max": 1}}, "batch.rows_max, http.port"),
        ({"recorder": {"path": "there"}}, "recorder"),
        ({"limits": {"drain_s": 1}, "log": {"level": "debug"}}, "limits.drain_s"),
    ],
)
def test_what_only_a_restart_can_change_is_named_without_its_value(
    sections: dict[str, Any], names: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_followed(config(), config(**sections), "c.toml: ")
    assert str(refused.value).startswith(f"c.toml: {names}: can't change while the process runs")
    assert "hunter22" not in str(refused.value)


def test_many_names_are_counted() -> None:
    budget = {"bytes": 9_999, "rows": 9, "age_max_s": 9, "low_mark": 0.1, "high_mark": 0.2}
    new = config(budget=budget, books={"verify": False, "levels_max": 999})
    with pytest.raises(ConfigError, match="and 2 more"):
        check_followed(config(), new, "")
