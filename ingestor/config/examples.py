"""The example configurations that come with the program: one for each venue, and the demo's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ingestor.model.errors import ConfigError
from ingestor.model.suggest import nearest

_PACKAGE: Final = Path(__file__).parents[1]
# A wheel carries them as data of the package; a checkout has them in `config/`.
_FOLDERS: Final = (_PACKAGE / "data" / "config", _PACKAGE.parent / "config")


def examples() -> dict[str, Path]:
    """Return the example files by name: the venue, or `demo`."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.toml"))}


def write_example(name: str, path: Path, *, overwrite: bool = False) -> None:
    """Write the example of a venue to a file.

    Args:
        name: the venue, or `demo`.
        path: the file to write.
        overwrite: whether a file that is there may be replaced.

    Raises:
        ConfigError: when there is no such example, or the file is there already.
        OSError: when the file cannot be written.
    """
    found = examples()
    if name not in found:
        raise ConfigError("has no example configuration", where=name, hint=nearest(name, found))
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(found[name].read_text("utf-8"))
    except FileExistsError:
        raise ConfigError("is there already", where=str(path), hint="or say --force") from None
