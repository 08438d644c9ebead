"""A disk that fills up: a small tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, mib: int = 8) -> Iterator[Path]:
    """Mount a tmpfs of so many MiB at `folder`, as root or by sudo without a password.

    Skips the test where neither is permitted.
    """
    folder.mkdir(exist_ok=True)
    options = f"size={mib}m,uid={os.getuid()},gid={os.getgid()}"
    root = _as_root()
    mount = [*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run([*root, "umount", str(folder)], check=True)


def _as_root() -> list[str]:
    return ["sudo", "-n"] if os.geteuid() != 0 and shutil.which("sudo") else []
