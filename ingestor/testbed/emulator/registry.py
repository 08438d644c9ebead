"""Find what the testbed knows of a venue: a module of its name in `emulator.venues`.

Such a module binds `venue` to a `Venue`: how the venue's recordings are served. It may bind
`dialect` to a class: how the simulated venue speaks as this one. Nothing is imported before it is
asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from ingestor.testbed.emulator import venues
from ingestor.testbed.emulator.venue import Venue, Verbatim


def module_of(name: str) -> ModuleType | None:
    """Import the module of a venue; None where there is none."""
    if name not in venue_names():
        return None
    return importlib.import_module(f"{venues.__name__}.{name}")


@cache
def venue_of(name: str) -> Venue:
    """Return the emulated venue of a name. One without a module is played as recorded."""
    module = module_of(name)
    if module is None:
        return Verbatim(name)
    venue: Venue = module.venue
    return venue


@cache
def venue_names() -> tuple[str, ...]:
    """Return the names of the venues that have a module, in order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(venues.__path__)))
