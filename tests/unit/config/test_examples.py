"""ingestor.config.examples: what is written, and what is not overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.config.examples import examples, write_example
from ingestor.config.load import find_problems
from ingestor.model.errors import ConfigError
from ingestor.sources.registry import markets, registry


def test_every_venue_has_an_example() -> None:
    assert set(registry().sources) - {"simulated"} <= set(examples())
    assert "demo" in examples()


@pytest.mark.parametrize("name", examples())
def test_an_example_can_be_used_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    write_example(name, path)
    assert find_problems(path, markets()) == []


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        write_example("demo", path)
    assert path.read_text() == "mine"
    write_example("demo", path, overwrite=True)
    assert path.read_text() == examples()["demo"].read_text()


def test_an_unknown_venue_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean kraken"):
        write_example("krakn", tmp_path / "mine.toml")
    assert not list(tmp_path.iterdir())
