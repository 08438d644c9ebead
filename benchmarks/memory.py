"""Memory of a connection, plain and with TLS.

Measured: resident memory of the ingestor's process with many open, silent connections, less that
with few of them, for each connection more: transport, session, subscription, its instrument and all
bookkeeping, with the same transport settings as every other benchmark. (Less that of the process
before it connected would be too little: the first thousands live in what the start left free.)
TLS with certificates made for the run (trustme).
With --soak: 15,000 connections held for five minutes, and ten minutes in which all connections are
cut again and again; what is reported is the growth.
Not measured: the kernel's socket buffers, instruments and books (`books` has these).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trustme

from benchmarks.processes import STUB, Child, LoadServer, ingest, stub_broker

RATE: Final = 0.01  # messages per second of each stream: as good as idle
HELD: Final = 15_000
HELD_S: Final = 300.0
RECONNECTS_S: Final = 600.0
RECONNECTING: Final = 1_000
ADDRESSES: Final = 10


def run(*, quick: bool = False, soak: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    counts = (500, 1_500) if quick else (1_000, 5_000)
    results = [_idle(count, tls=tls) for tls in (False, True) for count in counts]
    headline: dict[str, Any] = {
        "kib_per_connection_plain": _each(*results[:2]),
        "kib_per_connection_tls": _each(*results[2:]),
    }
    if soak:
        held, cut = _held(), _reconnects()
        results += [held, cut]
        headline["kib_growth_reconnects"] = cut["growth_kib"]
        headline["disconnects_15000_held"] = held["reconnects"]
    return {"results": results, "headline": headline}


def _idle(count: int, *, tls: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, stub_broker() as bootstrap:
        certificate, environment = _certificate(Path(folder)) if tls else (None, {})
        with (
            LoadServer(count, RATE, certificate=certificate) as server,
            ingest(server, bootstrap, addresses=ADDRESSES, environment=environment) as ingestor,
        ):
            connect_s = ingestor.wait_connected(count)
            time.sleep(1.0)
            after = ingestor.sample()
            ingestor.stop()
    return {
        "transport": "TLS" if tls else "plain",
        "connections": count,
        "connect_s": round(connect_s, 1),
        "rss_mib": round(after["rss_kib"] / 1024, 2),
        "broker": STUB,
    }


def _each(few: dict[str, Any], many: dict[str, Any]) -> float:
    """Return KiB for each connection more."""
    growth_kib: float = (many["rss_mib"] - few["rss_mib"]) * 1024
    connections: int = many["connections"] - few["connections"]
    return round(growth_kib / connections, 1)


def _certificate(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the server's certificate with its key, and the environment that trusts it."""
    authority = trustme.CA()
    trusted, certificate = folder / "authority.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(trusted)
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        certificate
    )
    return certificate, {"SSL_CERT_FILE": str(trusted)}


def _held() -> dict[str, Any]:
    """15,000 connections at one message per second each, for five minutes."""
    with (
        stub_broker() as bootstrap,
        LoadServer(HELD, 1.0) as server,
        ingest(server, bootstrap, addresses=ADDRESSES, lags=True) as ingestor,
    ):
        ingestor.wait_connected(HELD)
        ingestor.window(5.0, settle_s=5.0)
        window = ingestor.window(HELD_S, settle_s=0.0)
        ingestor.stop()
    return {
        "transport": "plain, held",
        "connections": HELD,
        "seconds": HELD_S,
        "growth_kib": round(window["rss_kib"]),
        "reconnects": window.last["reconnects"],
        "core": round(window.core, 3),
        "lag_p99_ms": window.lag_ms["p99"],
    }


def _reconnects() -> dict[str, Any]:
    """All of 1,000 connections cut as soon as they are back, for ten minutes."""
    with (
        stub_broker() as bootstrap,
        LoadServer(RECONNECTING, 1.0) as server,
        ingest(server, bootstrap, addresses=ADDRESSES) as ingestor,
    ):
        ingestor.wait_connected(RECONNECTING)
        _cut(server, ingestor, 60.0)  # what grows once is no leak
        first = ingestor.sample()
        _cut(server, ingestor, RECONNECTS_S)
        last = ingestor.sample()
        ingestor.stop()
    return {
        "transport": "plain, cut again and again",
        "connections": RECONNECTING,
        "seconds": RECONNECTS_S,
        "growth_kib": round(last["rss_kib"] - first["rss_kib"]),
        "reconnects": last["reconnects"] - first["reconnects"],
    }


def _cut(server: LoadServer, ingestor: Child, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        server.control("cut", "within_s=1")
        time.sleep(2.0)
        ingestor.wait_connected(RECONNECTING)
