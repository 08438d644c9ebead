"""Find the venues' adapters: by name in the program's own package, then by entry point.

The program's own venues are the modules of the package `ingestor_feeds`, which is the folder
`feeds` of a checkout (docs/adr/0020). A package may hold several: those in its folder `venues`
(docs/adr/0046). A venue of a third party is an entry point of the group
`ingestor.feeds` whose name is the venue and whose value is a module with the name `adapter` bound,
or the adapter itself (`module:attribute`). A venue is found once: a second claim on a name is
refused, whoever makes it. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

from ingestor.adapter import FeedAdapter, Market
from ingestor.adapter.addresses import markets_at
from ingestor.model.errors import ConfigError
from ingestor.model.suggest import nearest

GROUP: Final = "ingestor.feeds"
FAMILY: Final = "venues"  # the folder of a package for further venues of its family
PARENT: Final = Path(__file__).resolve().parents[2]  # holds the package `ingestor`
_PACKAGE_NAMES: Final = ("ingestor_feeds", "feeds")  # in an installation, in a checkout


@dataclass(frozen=True, slots=True)
class FeedSource:
    """Say where an adapter is: `module` or `module:attribute`, and who brings it."""

    name: str
    target: str
    owner: str = "this program"


@dataclass(slots=True)
class FeedRegistry:
    """The venues that can be had, by name. `sources` is in order of names."""

    sources: dict[str, FeedSource]
    _loaded: dict[str, type[FeedAdapter]] = field(default_factory=dict)

    def __contains__(self, venue: str) -> bool:
        return venue in self.sources

    def load(self, venue: str, where: str = "") -> type[FeedAdapter]:
        """Import a venue's adapter. `where`: the file and key that name it, for the message.

        Raises ConfigError for an unknown venue, naming the nearest one, and for one that can't be
        imported or is no adapter.
        """
        source = self.sources.get(venue)
        if source is None:
            hint = nearest(venue, self.sources)
            raise ConfigError(f"unknown venue {venue!r}", where=where, hint=hint)
        if venue not in self._loaded:
            self._loaded[venue] = _import(source, where)
        return self._loaded[venue]

    def market(self, venue: str, market: str, where: str = "") -> Market:
        """Return a market of a venue.

        Args:
            venue: Name of the venue.
            market: Name of the market.
            where: Place in the configuration, for the error.

        Raises:
            ConfigError: There is none; the text names the nearest one.
        """
        markets = self.load(venue, where).markets
        if market not in markets:
            what = f"{venue} has no market {market!r}"
            raise ConfigError(what, where=where, hint=nearest(market, markets))
        return markets[market]

    def load_all(self) -> dict[str, type[FeedAdapter]]:
        """Import every adapter, in order of names. Raises ConfigError for the first bad one."""
        return {name: self.load(name) for name in self.sources}


def discover(
    package: ModuleType, entry_points: Iterable[importlib.metadata.EntryPoint]
) -> FeedRegistry:
    """Find the modules of a package and the entry points.

    Raises ConfigError when two claim one name: rows must not change their decoder by an installed
    package. An entry point that names the package's own module is no second claim.
    """
    sources: dict[str, FeedSource] = {}
    for name, target in _venues(package):
        if sources.setdefault(name, FeedSource(name, target)).target != target:
            raise ConfigError(f"venue {name!r} is claimed by {sources[name].target} and {target}")
    for point in entry_points:
        owner = point.dist.name if point.dist else point.value
        found = FeedSource(point.name, point.value, owner)
        present = sources.setdefault(point.name, found)
        if present.target != found.target:
            raise ConfigError(
                f"venue {point.name!r} is claimed by {present.owner} and by {owner}",
                where=f"entry points {GROUP}",
                hint=f"uninstall {owner} or have it use another name",
            )
    return FeedRegistry(dict(sorted(sources.items())))


def _venues(package: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the name and the module of each venue.

    A package of a family has further venues in its folder `venues`, a module each. Nothing is
    imported.
    """
    for module in pkgutil.iter_modules(package.__path__):
        target = f"{package.__name__}.{module.name}"
        yield module.name, target
        if module.ispkg:
            folders = [str(Path(path, module.name, FAMILY)) for path in package.__path__]
            for member in pkgutil.iter_modules(folders):
                yield member.name, f"{target}.{FAMILY}.{member.name}"


def import_feeds(parent: Path) -> ModuleType:
    """Import the package of the program's own venues.

    Only the package in `parent` is imported. `feeds` is a common name: a package of that name that
    comes earlier on the import path is refused and its code does not run.

    Raises ConfigError when the package is missing, or when another one hides it.
    """
    files = [parent / name / "__init__.py" for name in _PACKAGE_NAMES]
    ours = next((file for file in files if file.is_file()), None)
    if ours is None:
        what = f"no package {' or '.join(_PACKAGE_NAMES)} in {parent}"
        raise ConfigError(what, hint="install market-data-ingestor again")
    name = ours.parent.name
    spec = importlib.util.find_spec(name)
    found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if found != ours.resolve():
        what = f"the venues in {ours.parent} can't be imported: `import {name}` finds {found}"
        raise ConfigError(what, hint="start in another folder, or rename the other package")
    return importlib.import_module(name)


@cache
def registry() -> FeedRegistry:
    """Return the registry of this installation.

    Raises ConfigError as `import_feeds` and `discover` do.
    """
    return discover(import_feeds(PARENT), importlib.metadata.entry_points(group=GROUP))


def adapter_of(venue: str, where: str = "") -> type[FeedAdapter]:
    """Return a venue's adapter. Raises ConfigError as `FeedRegistry.load` does."""
    return registry().load(venue, where)


def markets() -> dict[str, list[str]]:
    """Return every venue of this installation with its markets, as the configuration wants it.

    Imports all adapters. Raises ConfigError for the first bad one.
    """
    return {venue: list(adapter.markets) for venue, adapter in registry().load_all().items()}


def venues_at(url: str) -> list[str]:
    """Return the venues that have an address; a module that can't be imported has none.

    Imports all adapters. Raises ConfigError as `registry` does.
    """
    found = []
    for venue in registry().sources:
        with suppress(ConfigError):
            if markets_at(adapter_of(venue), url):
                found.append(venue)
    return found


def _import(source: FeedSource, where: str) -> type[FeedAdapter]:
    module_name, _, attribute = source.target.partition(":")
    try:
        adapter: type[FeedAdapter] = getattr(
            importlib.import_module(module_name), attribute or "adapter"
        )
        venue, markets = adapter.venue, adapter.markets
    except Exception as failure:  # whatever a third party's module raises
        what = f"venue {source.name!r} of {source.owner} can't be loaded"
        hint = f"{type(failure).__name__}: {failure}"
        raise ConfigError(what, where=where, hint=hint) from failure
    if venue != source.name or not markets:
        what = f"venue {source.name!r} of {source.owner} calls itself {venue!r}"
        raise ConfigError(what, where=where, hint="the entry point has the venue's name")
    return adapter
