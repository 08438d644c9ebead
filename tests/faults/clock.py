"""The wall clock of a process, moved by a shim that is preloaded (`clock.c`, built by gcc)."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).with_name("clock.c")
SECOND_NS: Final = 1_000_000_000


def build(folder: Path) -> Path:
    """Compile the shim into `folder`; skips the test where there is no gcc."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    library = folder / "clock.so"
    options = ("-Wall", "-Werror", "-O2", "-shared", "-fPIC")
    subprocess.run(["gcc", *options, "-o", str(library), str(SOURCE)], check=True)
    return library


class ClockShim:
    """The clock of the processes that are started with `environment`."""

    def __init__(self, library: str, file: Path) -> None:
        self._file = file
        file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": library, "CLOCK_OFFSET_FILE": str(file)}

    def set(self, offset_s: float) -> None:
        """Step the clock to so many seconds before (negative) or after the true time."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", round(offset_s * SECOND_NS)))
