"""Opens files of a recordings folder: regular files inside it, and nothing else.

A recording may come from anywhere. A link, a device or a pipe in its folder must not make a
command read what lies outside, wait for ever, or write over another file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ingestor.model.errors import RecordingError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    It is looked at before it is opened, since opening a device or a pipe may do something, and
    again afterwards, since it may have been replaced.

    Raises:
        OSError: if it can't be opened.
        RecordingError: if it is no regular file.
    """
    _check(path, path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def create_exclusively(path: Path) -> BinaryIO:
    """Create a file for writing, in place of whatever has its name. Follows no link.

    Raises OSError.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "wb")


def regular_files(
    root: Path, refuse: Callable[[Path, str], None] = lambda path, what: None
) -> Iterator[Path]:
    """Yield the regular files below a folder, sorted within each folder.

    Args:
        root: the folder. It may be a link itself; whoever named it means its target.
        refuse: called with each entry that is left out, and the reason.
    """
    inside = root.resolve()

    def unreadable(failure: OSError) -> None:
        refuse(Path(failure.filename or root), failure.strerror or str(failure))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            try:
                _check_inside(path, inside)
                _check(path, path.stat().st_mode)
            except RecordingError as failure:
                refuse(path, failure.what)
            except (OSError, RuntimeError) as failure:  # RuntimeError: a loop of links
                refuse(path, getattr(failure, "strerror", None) or str(failure))
            else:
                yield path


def _check_inside(path: Path, folder: Path) -> None:
    """Raises RecordingError when a link leads out of a folder, OSError when it leads nowhere."""
    if path.is_symlink() and not path.resolve(strict=True).is_relative_to(folder):
        raise RecordingError(str(path), 0, "is a link that leads out of the folder")


def _check(path: Path, mode: int) -> None:
    """Raises RecordingError unless the mode is that of a regular file."""
    if stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
    raise RecordingError(str(path), 0, f"is {kind}, no regular file")
