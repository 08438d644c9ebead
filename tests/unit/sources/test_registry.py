"""Finding adapters by name and by entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from types import ModuleType

import pytest

import feeds
from feeds.coinbase import Coinbase
from ingestor.model.errors import ConfigError
from ingestor.sources.registry import (
    GROUP,
    PARENT,
    adapter_of,
    discover,
    import_feeds,
    markets,
    registry,
)

ACME = """
class Acme:
    venue = "{venue}"
    markets = {markets}
adapter = Acme
"""


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path. Modules imported from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_our_own_venues_are_found() -> None:
    assert adapter_of("coinbase") is Coinbase
    assert {"binance", "bybit", "coinbase", "kraken", "okx"} <= set(registry().sources)
    assert list(registry().sources) == sorted(registry().sources)
    assert "coinbase" in registry()
    assert "acme" not in registry()
    assert markets()["bybit"] == ["spot", "linear", "inverse"]


def test_nothing_is_imported_before_it_is_asked_for(third_party: Path) -> None:
    (third_party / "acme_idle.py").write_text("raise RuntimeError('imported')")
    found = discover(feeds, [point("acme_idle", "acme_idle")])
    assert "acme_idle" in found
    assert found.load("coinbase") is Coinbase


def test_an_unknown_venue_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        registry().load("coinbse", "demo.toml: feeds[0].venue")
    assert str(caught.value) == (
        "demo.toml: feeds[0].venue: unknown venue 'coinbse'; did you mean coinbase?"
    )


def test_an_unknown_market_names_the_nearest() -> None:
    assert registry().market("bybit", "linear") is adapter_of("bybit").markets["linear"]
    with pytest.raises(ConfigError, match="bybit has no market 'liner'; did you mean linear"):
        registry().market("bybit", "liner")


@pytest.mark.parametrize("value", ["acme_feed", "acme_feed:Acme"])
def test_a_third_party_is_found_by_its_entry_point(third_party: Path, value: str) -> None:
    (third_party / "acme_feed.py").write_text(ACME.format(venue="acme", markets={"spot": None}))
    found = discover(feeds, [point("acme", value)])
    assert found.load("acme").venue == "acme"
    assert found.load("acme") is found.load("acme")
    assert set(found.load_all()) == {"acme", *discover(feeds, []).sources}


def test_the_venues_of_a_checkout_are_in_its_folder_feeds() -> None:
    assert import_feeds(PARENT) is feeds


def test_an_installed_package_comes_before_a_folder_feeds(third_party: Path) -> None:
    for name in ("ingestor_feeds", "feeds"):
        (third_party / name).mkdir()
        (third_party / name / "__init__.py").touch()
    assert import_feeds(third_party).__file__ == str(third_party / "ingestor_feeds/__init__.py")


def test_another_package_of_the_same_name_is_refused_unread(
    tmp_path: Path, third_party: Path
) -> None:
    ours = tmp_path / "lib" / "ingestor_feeds"
    ours.mkdir(parents=True)
    (ours / "__init__.py").touch()
    (third_party / "ingestor_feeds.py").write_text("raise RuntimeError('imported')")
    with pytest.raises(ConfigError, match=r"finds .*ingestor_feeds\.py; start in another folder"):
        import_feeds(ours.parent)


def test_venues_that_are_not_installed_are_missed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no package ingestor_feeds or feeds in"):
        import_feeds(tmp_path)


def test_an_entry_point_of_our_own_module_is_no_second_claim() -> None:
    assert discover(feeds, [point("okx", "feeds.okx")]).load("okx").venue == "okx"


def test_a_third_party_never_shadows_a_venue() -> None:
    with pytest.raises(ConfigError, match="venue 'okx' is claimed by this program and by evil"):
        discover(feeds, [point("okx", "evil")])
    with pytest.raises(ConfigError, match="venue 'acme' is claimed by one and by two"):
        discover(feeds, [point("acme", "one"), point("acme", "two")])


def test_the_distribution_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "evil-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-feeds\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\nokx = evil\n")
    with pytest.raises(ConfigError, match="uninstall evil-feeds or have it use another name"):
        discover(feeds, PathDistribution(folder).entry_points)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("adapted = 1", "AttributeError"),
        ("adapter = 1", "AttributeError"),
    ],
)
def test_a_venue_that_cannot_be_loaded_costs_itself(
    third_party: Path, text: str, hint: str
) -> None:
    (third_party / "acme_broken.py").write_text(text)
    found = discover(feeds, [point("acme", "acme_broken")])
    with pytest.raises(ConfigError, match="'acme' of acme_broken can't be loaded") as caught:
        found.load("acme", "demo.toml: feeds[0].venue")
    assert hint in str(caught.value)
    assert found.load("coinbase") is Coinbase


@pytest.mark.parametrize(("venue", "its_markets"), [("amce", {"spot": None}), ("acme", {})])
def test_an_adapter_of_another_name_is_refused(
    third_party: Path, venue: str, its_markets: dict[str, None]
) -> None:
    (third_party / "acme_other.py").write_text(ACME.format(venue=venue, markets=its_markets))
    with pytest.raises(ConfigError, match=f"'acme' of acme_other calls itself '{venue}'"):
        discover(feeds, [point("acme", "acme_other")]).load("acme")


def test_a_package_without_modules_has_no_venue(tmp_path: Path) -> None:
    empty = ModuleType("empty")
    empty.__path__ = [str(tmp_path)]
    with pytest.raises(ConfigError, match="unknown venue 'okx'; none is known"):
        discover(empty, []).load("okx")
