"""Check limits, disk, Kafka's login, venues and the clock for `ingestor doctor`."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp

from ingestor.app.settings import kafka_settings
from ingestor.config.model import Config
from ingestor.kafka.diagnosis import require_broker
from ingestor.model.errors import SinkUnavailable
from ingestor.sources.registry import adapter_of

State = Literal["ok", "warning", "failed"]
MIB: Final = 1 << 20
BASE_BYTES: Final = 160 * MIB  # the process before its first row
OFFSET_MAX_S: Final = 2.0
DISK_HOURS_MIN: Final = 1 << 30  # an hour of recording, roughly; less is a warning
_LOGIN_S: Final = 10.0
_REST_S: Final = 5.0
_REFUSED: Final = {403, 407, 418, 429, 451}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    what: str
    state: State
    text: str


async def examine_login(config: Config) -> list[Finding]:
    """Log in to Kafka as `run` does. Raises ConfigError for a password that can't be read."""
    settings = kafka_settings(config.kafka)
    protocol = str(settings.security.get("security_protocol", "PLAINTEXT"))
    user = settings.security.get("sasl_plain_username")
    who = f"{protocol}{f' as {user}' if user else ''}"
    try:
        async with asyncio.timeout(_LOGIN_S):
            await require_broker(settings.client_options())
    except SinkUnavailable as failure:
        remedy = "check [kafka] security, and that the broker's listener has the same protocol"
        return [Finding("kafka login", "failed", f"{who}: {failure.reason}: {remedy}")]
    except TimeoutError:
        text = f"{who}: no answer in {_LOGIN_S:g} s: is it a Kafka broker, and its listener right?"
        return [Finding("kafka login", "failed", text)]
    return [Finding("kafka login", "ok", who)]


@dataclass(frozen=True, slots=True)
class _Answer:
    """status: 0 where there was none. offset_s: our clock minus theirs; None: not told."""

    status: int
    reason: str = ""
    offset_s: float | None = None


async def examine_venues(config: Config) -> list[Finding]:
    """Ask each venue's REST server, and compare our clock with theirs."""
    servers: dict[str, str] = {}
    for feed in config.feeds:
        adapter = adapter_of(feed.venue)
        server = feed.rest_url or adapter.markets[feed.market].rest_url
        if server:
            servers.setdefault(server, f"{feed.venue} {feed.market}")
    if not servers:
        return []
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_REST_S), trust_env=False
    ) as session:
        answers = await asyncio.gather(*(_ask(session, server) for server in servers))
    found = [
        _rest_finding(name, server, answer)
        for (server, name), answer in zip(servers.items(), answers, strict=True)
    ]
    return [
        *found,
        _clock_finding([item.offset_s for item in answers if item.offset_s is not None]),
    ]


async def _ask(session: aiohttp.ClientSession, server: str) -> _Answer:
    """Ask for nothing in particular: that there is an answer is enough."""
    before_s = time.time()
    try:
        async with session.get(server, allow_redirects=False) as response:
            now_s = time.time()
            date = response.headers.get("Date", "")
            return _Answer(response.status, offset_s=_offset_s(date, (before_s + now_s) / 2))
    except TimeoutError:
        return _Answer(0, f"no answer in {_REST_S:g} s")
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLError) as failure:
        return _Answer(0, f"its certificate isn't trusted: {failure}")
    except (aiohttp.ClientError, OSError, ValueError) as failure:
        return _Answer(0, " ".join(str(failure).split()) or type(failure).__name__)


def _offset_s(date: str, now_s: float) -> float | None:
    """Return our clock minus that of a `Date` header, which is cut to whole seconds."""
    try:
        return now_s - (parsedate_to_datetime(date).timestamp() + 0.5)
    except (TypeError, ValueError):
        return None


def _rest_finding(name: str, server: str, answer: _Answer) -> Finding:
    what = f"rest {name}"
    if not answer.status:
        remedy = "check name server, firewall and proxy; without it no lists, snapshots or repairs"
        return Finding(what, "failed", f"{server}: {answer.reason}: {remedy}")
    if answer.status in _REFUSED:
        remedy = "the venue refuses this address: another region, another source address, or later"
        return Finding(what, "warning", f"{server}: HTTP {answer.status}: {remedy}")
    return Finding(what, "ok", f"{server} answers")


def _clock_finding(offsets_s: list[float]) -> Finding:
    """Compare clocks: the middle of several, since one venue's clock may be wrong."""
    if not offsets_s:
        return Finding("clock", "warning", "not compared: no venue told its time")
    offset_s = sorted(offsets_s)[len(offsets_s) // 2]
    text = f"{offset_s:+.1f} s from {len(offsets_s)} servers' (they tell whole seconds)"
    if abs(offset_s) > OFFSET_MAX_S:
        remedy = "run chrony or systemd-timesyncd: lags and times of receipt are off by this much"
        return Finding("clock", "warning", f"{text}: {remedy}")
    return Finding("clock", "ok", text)


def examine_disk(config: Config) -> list[Finding]:
    """Look at the recorder's folder: whether it can be written, and how much room there is."""
    if config.recorder is None:
        return []
    folder = config.recorder.path.expanduser()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"{folder}: {there} can't be written: change its owner, or recorder.path"
        return [Finding("recorder disk", "failed", text)]
    free = shutil.disk_usage(there).free
    text = f"{folder}: {free / (1 << 30):,.1f} GiB free"
    kept = config.recorder.retention_bytes
    if free < DISK_HOURS_MIN:
        text = f"{text}: make room, or set recorder.retention_bytes"
        return [Finding("recorder disk", "warning", text)]
    if kept is None and config.recorder.retention_age_h is None:
        text = f"{text}; nothing is removed: set recorder.retention_age_h or retention_bytes"
        return [Finding("recorder disk", "warning", text)]
    if kept is not None and kept > free + _size(folder):
        text = f"{text}: less than recorder.retention_bytes ({kept / (1 << 30):,.1f} GiB)"
        return [Finding("recorder disk", "warning", f"{text}: lower it, or make room")]
    return [Finding("recorder disk", "ok", text)]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def examine_limits(config: Config, root: Path = Path("/")) -> list[Finding]:
    """Compare the container's limits of memory and CPU with what the configuration may take.

    Args:
        config: The configuration.
        root: Of the file system.
    """
    limits = cgroup_limits(root)
    memory, cores = limits.get("memory"), limits.get("cores")
    wanted = BASE_BYTES + config.budget.bytes
    if config.recorder is not None:
        wanted += config.recorder.buffer_bytes
    found = []
    if memory is None:
        found.append(Finding("memory limit", "ok", "none"))
    else:
        text = f"{memory / MIB:,.0f} MiB"
        is_enough = memory >= wanted
        if not is_enough:
            text += (
                f" are less than the {wanted / MIB:,.0f} MiB that a full budget takes: raise the "
                "limit, or lower budget.bytes"
            )
        found.append(Finding("memory limit", "ok" if is_enough else "failed", text))
    if cores is None:
        found.append(Finding("cpu limit", "ok", f"none; {os.cpu_count()} cores"))
    elif cores < 1:
        text = f"{cores:g} cores: it is held back for part of each 100 ms; give it a whole one"
        found.append(Finding("cpu limit", "warning", text))
    else:
        found.append(Finding("cpu limit", "ok", f"{cores:g} cores"))
    return found


def cgroup_limits(root: Path) -> Mapping[str, float]:
    """Return the strictest limits of this process's control groups: `memory` in bytes, `cores`."""
    found: dict[str, float] = {}
    for folder in _groups(root):
        memory = _numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes")
        if memory and memory[0] < 1 << 60:  # the first version writes a huge number for none
            found["memory"] = min(found.get("memory", memory[0]), memory[0])
        quota = _numbers(folder / "cpu.max") or [
            *_numbers(folder / "cpu.cfs_quota_us"),
            *_numbers(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:
            found["cores"] = min(found.get("cores", quota[0] / quota[1]), quota[0] / quota[1])
    return found


def _groups(root: Path) -> list[Path]:
    """Return the folders of this process's groups and of all above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: dict[Path, None] = {}
    for line in lines:
        _, controllers, name = ([*line.split(":", 2), "", ""])[:3]
        base = root / "sys/fs/cgroup"
        for controller in controllers.split(",") if controllers else [""]:
            top = base / controller if controller else base
            place = top / name.lstrip("/")
            for folder in (place, *place.parents):
                found[folder] = None
                if folder == top:
                    break
    return list(found)


def _numbers(path: Path) -> list[float]:
    """Return the numbers in a file; none where it says `max`, or is not there."""
    try:
        words: list[Any] = path.read_text().split()
        return [float(word) for word in words]
    except (OSError, ValueError):
        return []
