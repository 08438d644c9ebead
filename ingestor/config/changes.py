"""Find how two configurations differ, and which changes a running process can follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

from ingestor.config.model import Config
from ingestor.model.errors import ConfigError

FOLLOWED: Final = ("feeds", "log", "limits.connections_max")
"""Sections and keys that may change while the process runs."""

_NAMED_MAX: Final = 5


def changed_settings(old: Config, new: Config) -> list[str]:
    """Return the dotted names of the settings that differ; feeds count as one."""
    return list(_differences(old, new, ""))


def check_followed(old: Config, new: Config, place: str) -> list[str]:
    """Return the names of settings that differ and can change while the process runs.

    Args:
        old: the configuration in force.
        new: the one that is to be.
        place: the file, for the message; "" or with a colon and a space at its end.

    Raises:
        ConfigError: for all others, with their names and without their values.
    """
    changed = changed_settings(old, new)
    fixed = [name for name in changed if not _is_followed(name)]
    if fixed:
        more = f" and {len(fixed) - _NAMED_MAX} more" if len(fixed) > _NAMED_MAX else ""
        raise ConfigError(
            "can't change while the process runs",
            where=f"{place}{', '.join(fixed[:_NAMED_MAX])}{more}",
            hint="restart it",
        )
    return changed


def _is_followed(name: str) -> bool:
    return any(name == item or name.startswith(f"{item}.") for item in FOLLOWED)


def _differences(old: BaseModel, new: BaseModel, prefix: str) -> Iterator[str]:
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _differences(before, after, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
