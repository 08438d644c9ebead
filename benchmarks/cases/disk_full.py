"""What a full disk under the recorder costs publishing: lag before, during and after.

Measured: the whole ingestor beside the stub broker at 20,000 messages/s, recording to a tmpfs of
8 MiB of which most is taken; lag from the load server's send time to the broker's ack. `during`
begins when the disk refuses, `after` when the space was freed and recording goes on.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.processes import ChildFailed, LoadServer, ingest, stub_broker

SYMBOLS: Final = 200
MESSAGES_PER_S: Final = 20_000
CONNECTIONS: Final = 10
DISK_MIB: Final = 8
FREE_BYTES: Final = 256 << 10
PHASE_S: Final = 4.0
HTTP_PORT: Final = 19_464
PATIENCE_S: Final = 60.0


def measure() -> list[dict[str, Any]]:
    """Return one row for each phase; none where a tmpfs may not be mounted."""
    with tempfile.TemporaryDirectory() as name, _small_disk(Path(name)) as disk:
        return [] if disk is None else _phases(disk)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _phases(disk: Path) -> list[dict[str, Any]]:
    ballast = disk / "ballast"
    environment = {
        "INGESTOR__RECORDER__PATH": str(disk),
        "INGESTOR__RECORDER__BUFFER_BYTES": str(1 << 20),
        "INGESTOR__HTTP__PORT": str(HTTP_PORT),
    }
    rows = []
    with (
        stub_broker() as bootstrap,
        LoadServer(SYMBOLS, MESSAGES_PER_S / SYMBOLS) as server,
        ingest(
            server,
            bootstrap,
            streams_per_connection=SYMBOLS // CONNECTIONS,
            lags=True,
            environment=environment,
        ) as ingestor,
    ):
        ingestor.wait_connected(CONNECTIONS)
        ingestor.window(1.0, settle_s=1.0)
        for phase in ("before", "during", "after"):
            if phase == "during":
                used = sum(one.stat().st_size for one in disk.rglob("*.zst*"))
                ballast.write_bytes(bytes(DISK_MIB * (1 << 20) - used - FREE_BYTES))
                _wait_for("failed")
            elif phase == "after":
                ballast.unlink()
                freed_s = time.monotonic()
                _wait_for("recording")
                resumed_s = time.monotonic() - freed_s
            ingestor.sample()  # forget the lags of the way here
            window = ingestor.window(PHASE_S, settle_s=0.0)
            row = {"path": f"disk full: {phase}", "per_s": round(window.per_s("acked"))}
            row |= {f"lag_{name}_ms": window.lag_ms[name] for name in ("p50", "p99")}
            rows.append(row | ({"resumed_s": round(resumed_s, 1)} if phase == "after" else {}))
        last = ingestor.stop()
    if last["lost"] or last["unaccounted"]:
        raise RuntimeError(f"the ledger doesn't balance: {last}")
    return rows


def _wait_for(state: str) -> None:
    """Wait until the recorder is in a state, as /metrics says. Raises ChildFailed."""
    wanted = f'ingestor_recorder_state{{state="{state}"}} 1.0'
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/metrics", timeout=10) as answer:
            if wanted in answer.read().decode():
                return
        time.sleep(0.2)
    raise ChildFailed(f"the recorder was not {state} in {PATIENCE_S:g} s")
