"""What recording takes from a live ingestor: two of them side by side, one with a recorder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.processes import Child, LoadServer, Window, ingest, stub_broker
from benchmarks.harness.saturated import CONNECTIONS, TRADES

BUDGET_MIB: Final = 4  # full at once: from then on reading goes as fast as acks come


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return one row for each encoding.

    cost: the part of the rows per CPU second that recording takes. The CPU of the recorder's thread
    counts as well, also what compresses and writes on another core meanwhile.
    """
    encodings, seconds = (("json",), 1.0) if quick else (("json", "binary"), 4.0)
    with stub_broker() as bootstrap, TRADES.server() as server:
        return [_row(server, bootstrap, encoding, seconds) for encoding in encodings]


def _row(server: LoadServer, bootstrap: str, encoding: str, seconds: float) -> dict[str, Any]:
    """Both read the same streams at the same time, so the machine slows both alike."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _ingestor(server, bootstrap, encoding, None) as plain,
        _ingestor(server, bootstrap, encoding, Path(folder)) as recorded,
    ):
        both = (plain, recorded)
        for one in both:
            one.wait_connected(CONNECTIONS)
        for one in both:
            one.wait_flowing()
        before = [one.sample() for one in both]
        recorded.window(seconds, settle_s=0.0)
        windows = [Window(one, child.sample()) for one, child in zip(before, both, strict=True)]
        for end in [one.stop() for one in both]:
            if end["lost"] or end["unaccounted"]:
                raise RuntimeError(f"the ledger doesn't balance: {end}")
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.zst"))
    rates = [window.per_cpu_s("acked") for window in windows]
    if not size:
        raise RuntimeError("nothing was recorded")
    return {
        "path": f"live {encoding}",
        "per_s": round(rates[0]),
        "per_s_recorded": round(rates[1]),
        "cost": round(1 - rates[1] / rates[0], 3),
    }


def _ingestor(server: LoadServer, bootstrap: str, encoding: str, folder: Path | None) -> Child:
    return ingest(
        server,
        bootstrap,
        channels=[TRADES.channel],
        encoding=encoding,
        streams_per_connection=TRADES.symbols // CONNECTIONS,
        budget_mib=BUDGET_MIB,
        environment={} if folder is None else {"INGESTOR__RECORDER__PATH": str(folder)},
    )
