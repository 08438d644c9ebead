"""Memory of a connection, plain and with TLS.

Measured: resident memory of the ingestor's process with many open, silent connections, less that
with few of them, for each connection more: transport, session, subscription, its instrument and all
bookkeeping, with the same transport settings as every other benchmark. (Less that of the process
before it connected would be too little: the first thousands live in what the start left free.)
TLS with certificates made for the run (trustme).
With --soak: 15,000 connections held for five minutes, and ten minutes in which all connections are
cut again and again; what is reported is the growth. --soak-minutes makes both shorter.
Not measured: the kernel's socket buffers, instruments and books (`books` has these).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.processes import (
    STUB,
    Child,
    LoadServer,
    ingest,
    make_certificate,
    stub_broker,
)
from benchmarks.harness.results import progress

RATE: Final = 0.01  # messages per second of each stream: as good as idle
HELD: Final = 15_000
RECONNECTING: Final = 1_000
SOAK_MINUTES: Final = 10.0  # of reconnects; the many connections are held for half as long
SAMPLE_S: Final = 10.0
ADDRESSES: Final = 10
Row = dict[str, Any]


def run(
    *, quick: bool = False, soak: bool = False, soak_minutes: float = SOAK_MINUTES
) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    counts = (1_000, 2_500) if quick else (1_000, 5_000)
    with stub_broker() as bootstrap, tempfile.TemporaryDirectory() as folder:
        certificate, trusting = make_certificate(Path(folder))
        plain = [_idle(count, bootstrap) for count in counts]
        tls = [_idle(count, bootstrap, certificate, trusting) for count in counts]
    results = plain + tls
    headline: dict[str, Any] = {
        "kib_per_connection_plain": growth_per_connection(*plain),
        "kib_per_connection_tls": growth_per_connection(*tls),
    }
    if soak:
        held, cut = _held(soak_minutes * 30.0), _reconnects(soak_minutes * 60.0)
        results += [held, cut]
        headline["disconnects_15000_held"] = held["reconnects"]
        headline["mib_growth_15000_held"] = held["growth_mib"]
        headline["mib_growth_reconnects"] = cut["growth_mib"]
    return {"results": results, "headline": headline}


def _idle(
    count: int,
    bootstrap: str,
    certificate: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Row:
    transport = "plain" if certificate is None else "TLS"
    progress(f"{count:,} connections, {transport}")
    with (
        LoadServer(count, RATE, certificate=certificate) as server,
        ingest(server, bootstrap, addresses=ADDRESSES, environment=environment) as ingestor,
    ):
        connect_s = ingestor.wait_connected(count)
        time.sleep(0.5)
        after = ingestor.sample()
    return {
        "transport": transport,
        "connections": count,
        "connect_s": round(connect_s, 1),
        "rss_mib": round(after["rss_kib"] / 1024, 2),
        "broker": STUB,
    }


def growth_per_connection(few: Row, many: Row) -> float:
    """Return KiB for each connection more."""
    growth_kib: float = (many["rss_mib"] - few["rss_mib"]) * 1024
    connections: int = many["connections"] - few["connections"]
    return round(growth_kib / connections, 1)


def _held(seconds: float) -> Row:
    """15,000 connections at one message per second each, held open for so long."""
    with (
        stub_broker() as bootstrap,
        LoadServer(HELD, 1.0) as server,
        ingest(server, bootstrap, addresses=ADDRESSES, lags=True) as ingestor,
    ):
        progress(f"{HELD:,} connections are opened")
        connect_s = ingestor.wait_connected(HELD)
        time.sleep(10.0)  # what is left of the rush
        first = ingestor.sample()
        samples = [first]
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, SAMPLE_S))
            samples.append(ingestor.sample())
            _say_how_it_goes(samples[-1], left_s - SAMPLE_S)
        last = ingestor.stop()
    cpu_s, held_s = (samples[-1][name] - first[name] for name in ("cpu_s", "time_s"))
    return {
        "transport": "plain, held",
        "connections": HELD,
        "connect_s": round(connect_s, 1),
        "rss_mib": round(samples[-1]["rss_kib"] / 1024, 2),
        "seconds": round(held_s),
        "growth_mib": _growth_mib(first, samples[-1]),
        "reconnects": samples[-1]["reconnects"],
        "messages_per_s": round((samples[-1]["frames"] - first["frames"]) / held_s),
        "core": round(cpu_s / held_s, 3),
        "lag_p99_ms_worst": max(sample["lag_ms"]["p99"] for sample in samples[1:]),
        "unaccounted": last["unaccounted"],
        "broker": STUB,
    }


def _reconnects(seconds: float) -> Row:
    """All of 1,000 connections cut as soon as they are back, for so long."""
    with (
        stub_broker() as bootstrap,
        LoadServer(RECONNECTING, 1.0) as server,
        ingest(server, bootstrap, addresses=ADDRESSES) as ingestor,
    ):
        connect_s = ingestor.wait_connected(RECONNECTING)
        _cut(server, ingestor, seconds / 10)  # what grows once is no leak
        first = ingestor.sample()
        _cut(server, ingestor, seconds)
        after = ingestor.sample()
        last = ingestor.stop()
    return {
        "transport": "plain, cut again and again",
        "connections": RECONNECTING,
        "connect_s": round(connect_s, 1),
        "rss_mib": round(after["rss_kib"] / 1024, 2),
        "seconds": round(after["time_s"] - first["time_s"]),
        "growth_mib": _growth_mib(first, after),
        "reconnects": after["reconnects"] - first["reconnects"],
        "unaccounted": last["unaccounted"],
        "broker": STUB,
    }


def _cut(server: LoadServer, ingestor: Child, seconds: float) -> None:
    """Cut all connections within a second, and again when they are back."""
    end_s = time.monotonic() + seconds
    said_s = time.monotonic()
    while (left_s := end_s - time.monotonic()) > 0:
        if time.monotonic() - said_s > SAMPLE_S:
            said_s = time.monotonic()
            _say_how_it_goes(ingestor.sample(), left_s)
        server.control("cut", "within_s=1")
        time.sleep(2.0)
        ingestor.wait_connected(RECONNECTING)


def _say_how_it_goes(sample: Row, left_s: float) -> None:
    progress(
        f"{sample['connected']:,} connected, {sample['reconnects']:,} reconnects, "
        f"{sample['rss_kib'] / 1024:.1f} MiB; {max(left_s, 0):.0f} s to go"
    )


def _growth_mib(first: Row, last: Row) -> float:
    growth_kib: float = last["rss_kib"] - first["rss_kib"]
    return round(growth_kib / 1024, 2)
