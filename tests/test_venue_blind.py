"""No code of the program but its feed, and at most one module of the emulator, names a venue."""

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import feeds
import ingestor
from ingestor.sources.registry import discover
from ingestor.testbed.emulator import venues as emulated

SIMULATED = "simulated"  # the testbed's own venue: the program offers it by name
VENUES = frozenset(discover(feeds, ()).sources) - {SIMULATED}
PACKAGE = Path(*ingestor.__path__)
EXEMPT = Path(*emulated.__path__)
COMPILED = {".pyc", ".so", ".pyd"}
WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")


def venues_in(text: str) -> set[str]:
    """Return the venues that a text names, as words of its own or as parts of identifiers."""
    return {*VENUES} & {word.lower() for word in WORD.findall(text)}


def named_venues() -> Iterator[str]:
    """Yield each place that names a venue, as file, line and name."""
    for path in sorted(PACKAGE.rglob("*")):
        if EXEMPT in path.parents or path.suffix in COMPILED or not path.is_file():
            continue
        place = path.relative_to(PACKAGE.parent)
        for venue in sorted(venues_in(str(path.relative_to(PACKAGE)))):
            yield f"{place} is named after {venue}"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            for venue in sorted(venues_in(line)):
                yield f"{place}:{number} names {venue}"


def test_there_are_venues_to_look_for() -> None:
    assert {"binance", "kraken"} <= VENUES


def test_no_code_outside_the_feeds_names_a_venue() -> None:
    found = list(named_venues())
    hint = f"{len(found)} places; move them to feeds/ or {EXEMPT.relative_to(PACKAGE.parent)}:"
    assert not found, "\n".join([hint, *found])


def test_the_emulator_has_at_most_one_module_a_venue() -> None:
    found = {module.name for module in pkgutil.iter_modules(emulated.__path__)}
    assert found <= VENUES | {SIMULATED}


@pytest.mark.parametrize(
    "text",
    ['venue == "okx"', "class OkxDesk:", "_okx_error(", "OKX_HOSTS", "wss://ws.okx.com", "(OKX)."],
)
def test_a_name_is_found_in_every_spelling(text: str) -> None:
    assert venues_in(text) == {"okx"}


def test_a_part_of_a_word_is_no_name() -> None:
    assert not venues_in("krakens and coinbased books")
