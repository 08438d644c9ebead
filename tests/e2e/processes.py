"""The commands as processes of their own, and a venue beside them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """This process's environment without settings of ours; caches and ports are the test's."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("INGESTOR_")}
    defaults = {
        "INGESTOR__CATALOGUE__CACHE_DIR": str(folder / "cache"),
        "INGESTOR__HTTP__PORT": "0",
    }
    return clean | defaults | settings


def ingestor(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "ingestor", *arguments]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT
    )


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.02)


@dataclass
class Ended:
    """How a process ended. took_s: since the last signal."""

    status: int
    out: str
    err: str
    took_s: float

    @property
    def result(self) -> dict[str, Any]:
        """The last line of standard output, which is JSON."""
        last: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return last


class Command:
    """A running command whose output goes to files, so that it never waits for a reader."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: dict[str, str],
        descriptors: int = 0,
        program: Sequence[str] = ("-m", "ingestor"),
    ) -> None:
        """descriptors: soft and hard limit of open files; 0 = those of this process."""
        limit = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"] if descriptors else []
        self._out = tempfile.TemporaryFile()  # noqa: SIM115
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*limit, sys.executable, *program, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            cwd=ROOT,
        )
        self._signalled_s = time.monotonic()

    @property
    def out(self) -> str:
        return _text(self._out)

    @property
    def err(self) -> str:
        return _text(self._err)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something while the command runs."""

        def met() -> bool:
            assert self.process.poll() is None, self.err
            return condition()

        until(met)

    def terminate(self) -> None:
        self._signalled_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)

    def end(self, timeout_s: float = PATIENCE_S) -> Ended:
        """Wait for the end; kill what doesn't come to one."""
        try:
            status = self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()
        took_s = time.monotonic() - self._signalled_s
        return Ended(status, _text(self._out), _text(self._err), took_s)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()


def _text(file: Any) -> str:
    size = os.fstat(file.fileno()).st_size
    text: bytes = os.pread(file.fileno(), size, 0)
    return text.decode()


@contextmanager
def command(*arguments: str, env: dict[str, str], descriptors: int = 0) -> Iterator[Command]:
    running = Command(arguments, env, descriptors)
    try:
        yield running
    finally:
        running.close()


class Venue:
    """The simulated venue in a process of its own."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.url: str = about["addresses"][0]
        self.rest_url: str = about["rest"]

    @property
    def feed(self) -> dict[str, Any]:
        """A feed of the configuration: everything that the venue has."""
        return {
            "venue": "simulated",
            "symbols": ["*"],
            "url": self.url,
            "rest_url": self.rest_url,
        }

    def toml(self, symbols: Sequence[str] = ("*",)) -> str:
        feed = self.feed | {"symbols": list(symbols)}
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in feed.items())
        return "[[feeds]]\n" + "".join(lines)

    def control(self, name: str, query: str = "") -> dict[str, Any]:
        """Commit a fault, or read `statistics`."""
        url = f"{self.rest_url}/control/{name}?{query}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    @property
    def frames(self) -> int:
        sent: int = self.control("statistics")["frames"]
        return sent


@contextmanager
def simulated_venue(
    *, symbols: int, rate_per_s: float, levels: int = 4, certificate: Path | None = None
) -> Iterator[Venue]:
    """rate_per_s: messages of each of three streams of a symbol. levels: in a book update.
    certificate: PEM with key and certificate; the venue then serves TLS."""
    numbers = {"--symbols": symbols, "--rate": rate_per_s, "--levels": levels}
    arguments = ("--json", *(str(part) for pair in numbers.items() for part in pair))
    if certificate is not None:
        arguments += ("--certificate", str(certificate))
    process = subprocess.Popen(
        [sys.executable, "-m", "ingestor.testbed.simulated.simulator", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield Venue(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()
