"""Compile the library.

It needs nothing but the standard library, and runs as a script:

    python ingestor/native/build.py [file]

`hatch_build.py` calls `compile_library` when the project is installed or built.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "src"
LIBRARY: Final = Path(__file__).parent / "libingestor.so"
_COMPILERS: Final = ("cc", "gcc", "clang")
_FLAGS: Final = ("-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=default", "-Wall", "-Wextra")


def find_compiler() -> list[str] | None:
    """Return the command of the C compiler: $CC, else the first one there is."""
    if command := os.environ.get("CC", "").strip():
        return shlex.split(command)
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    return [found] if found else None


def sources_digest() -> str:
    """Return what tells whether a library was made of these sources."""
    files = sorted(path for path in SOURCES.iterdir() if path.suffix in {".c", ".h"})
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def compile_library(target: Path = LIBRARY, flags: Sequence[str] = ()) -> str | None:
    """Compile the library; return why there is none, None when there is.

    Args:
        target: the file to write. It is replaced at once, since a process may have it open.
        flags: for the compiler, after our own.
    """
    compiler = find_compiler()
    if compiler is None:
        return "no C compiler"
    files = sorted(str(path) for path in SOURCES.glob("*.c"))
    made = target.with_name(f".{target.name}.{os.getpid()}")
    digest = f'-DSOURCES_DIGEST="{sources_digest()}"'
    command = [*compiler, *_FLAGS, digest, *flags, "-o", str(made), *files]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as failure:
        return f"{compiler[0]} does not run: {failure.strerror}"
    if ended.returncode != 0:
        made.unlink(missing_ok=True)
        lines = [line for line in ended.stderr.splitlines() if "error" in line]
        return f"{compiler[0]} fails: {(lines or [f'exit status {ended.returncode}'])[0]}"
    made.replace(target)
    return None


def main() -> int:
    """Compile to the given file, or to where the program looks for it."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else LIBRARY
    problem = compile_library(target)
    print(f"{target}: compiled" if problem is None else f"not compiled: {problem}")
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main())
