"""Make a flame graph of a running process: py-spy samples it from outside."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import aiohttp

from ingestor.cli.top import TIMEOUT_S, read_status
from ingestor.model.errors import ConfigError, TransportError

RATE_PER_S: Final = 100  # samples
GRACE_S: Final = 30.0  # to write the file


async def make_flame_graph(url: str, output: Path, *, seconds: int, worker: int) -> None:
    """Sample a process and write its flame graph.

    Args:
        url: Address of its status port, which names the process.
        output: The file, SVG.
        seconds: How long to sample.
        worker: Place of the worker, 0 where there is one process.

    Raises:
        ConfigError: py-spy is not installed, or there is no such worker.
        TransportError: The port can't be read, or the process can't be sampled.
    """
    program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if program is None:
        what = "py-spy is not installed"
        raise ConfigError(what, hint="install market-data-ingestor[profile]")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        status = await read_status(session, url)
    if worker >= len(status.pids):
        raise ConfigError(f"there is no worker {worker}", hint=f"there are {len(status.pids)}")
    process = await asyncio.create_subprocess_exec(
        *(program, "record", "--pid", str(status.pids[worker]), "--output", str(output)),
        *("--duration", str(seconds), "--rate", str(RATE_PER_S), "--nonblocking"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), seconds + GRACE_S)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines() or ["py-spy failed"]
        raise TransportError(f"process {status.pids[worker]}", lines[0])
