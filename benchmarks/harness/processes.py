"""The processes of a benchmark: load server, broker, pipelines under measurement."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

import orjson
import trustme

from ingestor.testbed.broker import DevBroker

TOPICS: Final = ("trades", "quotes", "book", "status", "quarantine", "deadletter")
COMPACTED: Final = ("instruments", "book_snapshot")
PARTITIONS: Final = 8
PEERS_TOPICS: Final = ("afternoon", "raw.ws", "ref.symbols")
STUB: Final = "stub broker (librdkafka's mock cluster), a process of its own"
ROOT: Final = Path(__file__).parents[2]
STALLED_S: Final = 120.0  # at most, while books are synchronised


class ChildFailed(Exception):
    """A measured process ended or said nothing; the text holds the end of its error output."""


class Child:
    """A process that speaks the protocol of `child.py`. A context manager."""

    def __init__(
        self,
        module: str,
        given: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        python: Path = Path(sys.executable),
    ) -> None:
        """given: passed as the first argument, in JSON."""
        first = [] if given is None else [orjson.dumps(given).decode()]
        self._command = [str(python), "-m", module, *first, *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.about: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment,
            cwd=ROOT,
        )
        try:
            self.about = self._line()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(BrokenPipeError):
                process.communicate()
        self._errors.close()

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def sample(self) -> dict[str, Any]:
        """Return its counters as of now."""
        process = self._running
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended: `_line` says why
            process.stdin.write(b"\n")
            process.stdin.flush()
        return self._line()

    def stop(self) -> dict[str, Any]:
        """End it in order; return its last line."""
        process = self._running
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        last = self._line()
        process.wait(30)
        return last

    def _line(self) -> dict[str, Any]:
        process = self._running
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(10)
            self._errors.seek(0)
            raise ChildFailed(self._errors.read()[-2_000:].decode(errors="replace"))
        read: dict[str, Any] = orjson.loads(line)
        return read

    def wait_connected(self, connections: int, timeout_s: float = 120.0) -> float:
        """Wait until so many are connected; return the seconds it took. Raises ChildFailed."""
        started = time.monotonic()
        while (connected := self.sample()["connected"]) < connections:
            if time.monotonic() - started > timeout_s:
                raise ChildFailed(f"{connected} of {connections} connected in {timeout_s:g} s")
            time.sleep(0.05)
        return time.monotonic() - started

    def wait_flowing(self, timeout_s: float = 60.0) -> None:
        """Wait until what is read also leaves: books have synchronised. Raises ChildFailed."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            window = self.window(0.5, 0.0)
            if window["acked"] + window["shed"] > 0.8 * window["rows"] > 0:
                return
        raise ChildFailed(f"rows are read but not acked: {window.last}")

    def window(self, seconds: float, settle_s: float = 1.0) -> Window:
        """Let it settle, then measure for so long."""
        time.sleep(settle_s)
        first = self.sample()
        time.sleep(seconds)
        return Window(first, self.sample())


@dataclass(frozen=True, slots=True)
class Window:
    """Two samples of a process, and what happened between them."""

    first: dict[str, Any]
    last: dict[str, Any]

    def __getitem__(self, name: str) -> float:
        return float(self.last[name] - self.first[name])

    @property
    def seconds(self) -> float:
        return self["time_s"]

    @property
    def core(self) -> float:
        """Share of one core."""
        return self["cpu_s"] / self.seconds

    def per_s(self, name: str) -> float:
        return self[name] / self.seconds

    def per_cpu_s(self, name: str) -> float:
        return self[name] / max(self["cpu_s"], 1e-9)

    def us_per(self, name: str) -> float:
        """CPU microseconds for each."""
        return self["cpu_s"] / max(self[name], 1) * 1e6

    @property
    def lag_ms(self) -> dict[str, float]:
        lags: dict[str, float] = self.last["lag_ms"]
        return lags


class LoadServer(Child):
    """The simulated venue in a process of its own; ends with its standard input."""

    def __init__(
        self,
        symbols: int,
        rate: float = 0.0,
        *,
        dialect: str = "simulated",
        levels: int = 20,
        depth: int = 50,
        certificate: Path | None = None,
    ) -> None:
        """rate: messages per second of each stream; 0 = as many as are read."""
        arguments = ["--json", "--symbols", f"{symbols}", "--rate", f"{rate}"]
        arguments += ["--dialect", dialect, "--levels", f"{levels}", "--depth", f"{depth}"]
        if certificate is not None:
            arguments += ["--certificate", str(certificate)]
        super().__init__("ingestor.testbed.simulated.simulator", arguments=arguments)
        self.dialect = dialect
        self.symbols = symbols

    @property
    def url(self) -> str:
        return str(self.about["addresses"][0])

    @property
    def rest(self) -> str:
        return str(self.about["rest"])

    def control(self, name: str, query: str = "") -> dict[str, Any]:
        """Call GET /control/NAME?QUERY and return its answer."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # loopback, our own
        url = f"{self.rest}/control/{name}?{query}"
        with urllib.request.urlopen(url, timeout=60, context=context) as reply:  # noqa: S310
            answer: dict[str, Any] = orjson.loads(reply.read())
        return answer

    def statistics(self) -> dict[str, Any]:
        return self.control("statistics")

    def symbol(self, number: int) -> str:
        return f"S{number:05}-USD" if self.dialect == "simulated" else f"S{number:05}USD"

    def stream(self, kind: str, number: int) -> str:
        """Return the name of a stream of the simulated dialect or of Binance."""
        symbol = self.symbol(number)
        if self.dialect == "simulated":
            return f"{kind}:{symbol}"
        name = {"trade": "trade", "quote": "bookTicker", "book": "depth@100ms"}[kind]
        return f"{symbol.lower()}@{name}"

    def hold(self) -> None:
        """Send nothing until `release` or `synchronise`."""
        self.control("stall", f"for_s={STALLED_S}")

    def release(self) -> None:
        self.control("stall", "for_s=0")

    def synchronise(self, ingestor: Child, books: int) -> None:
        """Send so much that books ask for snapshots, and go on when so many are there.

        Raises ChildFailed. A snapshot is as new as the server: of an ingestor that reads seconds
        behind it, all that lies between is left out, and what that costs would count for nothing.
        """
        self.release()
        self.hold()
        deadline_s = time.monotonic() + STALLED_S
        while (window := ingestor.window(0.1, 0.0)).last["resets"] < books or window["rows"]:
            if time.monotonic() > deadline_s:
                raise ChildFailed(f"{window.last['resets']} of {books} books synchronised")
        self.release()


@contextmanager
def stub_broker(prefix: str = "md.") -> Iterator[str]:
    """Run the embedded broker with all topics; yields its address."""
    topics = {f"{prefix}{name}.v1": PARTITIONS for name in (*TOPICS, *COMPACTED)}
    with DevBroker({**topics, **dict.fromkeys(PEERS_TOPICS, PARTITIONS)}) as broker:
        yield broker.bootstrap_servers


def make_certificate(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the server's certificate with its key, and the environment that trusts it."""
    authority = trustme.CA()
    trusted, certificate = folder / "authority.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(trusted)
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        certificate
    )
    return certificate, {"SSL_CERT_FILE": str(trusted)}


def ingest(
    server: LoadServer,
    bootstrap: str,
    *,
    channels: Sequence[str] = ("trades",),
    encoding: str = "binary",
    linger_ms: float | None = None,
    streams_per_connection: int = 1,
    addresses: int = 1,
    lags: bool = False,
    budget_mib: int = 256,
    share: tuple[int, int] = (0, 1),
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Return an ingestor process that subscribes to all symbols of the load server.

    linger_ms: a fixed wait; None: what `ingestor run` does, a wait that follows the load.
    budget_mib: what unacked rows may take; a small one reaches its steady state soon. share: which
    of how many workers it is. addresses: loopback addresses that connections come from; a venue's
    connect limit is for each.
    """
    given = {
        "venue": server.dialect,
        "url": server.url,
        "rest": server.rest,
        "bootstrap": bootstrap,
        "prefix": "md.",
        "channels": list(channels),
        "encoding": encoding,
        "linger_ms": linger_ms,
        "streams_per_connection": streams_per_connection,
        "source_addresses": [f"127.0.1.{number + 1}" for number in range(addresses)],
        "lags": lags,
        "budget_mib": budget_mib,
        "share": share,
    }
    return Child("benchmarks.harness.ingest_process", given, environment=environment)
