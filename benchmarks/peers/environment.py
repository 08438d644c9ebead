"""Programs that a user could run instead: cryptofeed and bbo-tap, in an environment of their own.

They need Python 3.13, which the rest does not, and other versions of libraries. The environment is
made once, in `.venv-peers`; where no such interpreter is found, or nothing can be installed, the
reason is what `baseline` shows. PEERS_PYTHON names an interpreter that is not found by itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.harness.processes import Child, LoadServer

FOLDER: Final = Path(__file__).parents[2] / ".venv-peers"
PACKAGES: Final = (
    "cryptofeed[kafka]==3.0.1",
    "bbo-tap==0.3.0",
    "aiokafka==0.14.0",
    "cramjam==2.14.0",  # lz4 for aiokafka
    "orjson",
    "uvloop",
)
PYTHON_MIN: Final = (3, 13)
INSTALL_S_MAX: Final = 180
_NEWER: Final = ("python3.15", "python3.14", "python3.13")
_ASK: Final = "import sys, venv, ensurepip; print(*sys.version_info[:2])"


class PeersMissing(Exception):
    """The peers can't be run here; the text says why."""


def environment(folder: Path = FOLDER) -> Path:
    """Return the interpreter of the peers' environment, making it when needed.

    Raises PeersMissing.
    """
    python = folder / "bin" / "python"
    stamp = folder / f".installed-{'-'.join(PACKAGES)}".replace("[kafka]", "")
    if stamp.exists():
        return python
    found = interpreter()
    if found is None:
        wanted = ".".join(map(str, PYTHON_MIN))
        raise PeersMissing(f"cryptofeed 3 needs Python {wanted} or newer: none found")
    try:
        _call(str(found), "-m", "venv", "--clear", str(folder))
        _call(str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *PACKAGES)
    except (OSError, subprocess.SubprocessError) as failure:
        shutil.rmtree(folder, ignore_errors=True)
        raise PeersMissing(f"can't be installed: {_reason(failure)}") from failure
    stamp.touch()
    return python


def interpreter() -> Path | None:
    """Return a Python that is new enough and runs, or None."""
    return next((one for one in _candidates() if _version(one) >= PYTHON_MIN), None)


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("PEERS_PYTHON"):
        yield Path(named)
    for name in _NEWER:
        if on_path := shutil.which(name):
            yield Path(on_path)
    for places in (".pyenv/versions", ".local/share/uv/python"):
        yield from sorted(Path.home().glob(f"{places}/*/bin/python3"), reverse=True)


def _version(python: Path) -> tuple[int, ...]:
    """Return what it says it is; () where it doesn't run, or can't make environments."""
    try:
        return tuple(map(int, _call(str(python), "-c", _ASK).split()))
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _call(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, timeout=INSTALL_S_MAX
    )
    return done.stdout


def _reason(failure: OSError | subprocess.SubprocessError) -> str:
    told: str = failure.stderr if isinstance(failure, subprocess.CalledProcessError) else ""
    return (told.strip().splitlines() or [str(failure)])[-1]


def cryptofeed(server: LoadServer, bootstrap: str, connections: int, python: Path) -> Child:
    """Return cryptofeed on all trades of the load server."""
    given = {
        "url": server.url,
        "rest": server.rest,
        "bootstrap": bootstrap,
        "streams_per_connection": server.symbols // connections,
    }
    return Child("benchmarks.peers.cryptofeed", given, python=python)


def bbo_tap(server: LoadServer, bootstrap: str, connections: int, python: Path) -> Child:
    """Return bbo-tap on all quotes of the load server."""
    given = {
        "url": server.url,
        "bootstrap": bootstrap,
        "symbols": [server.symbol(number) for number in range(server.symbols)],
        "streams_per_connection": server.symbols // connections,
    }
    return Child("benchmarks.peers.bbo_tap", given, python=python)
