"""`ingestor reload`: have a running process follow its configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from ingestor.admin.server import RELOAD_HEADER
from ingestor.model.errors import ConfigError, ReloadRefused, TransportError
from ingestor.telemetry.output import printable

TIMEOUT_S: Final = 300.0  # lists of several venues may be fetched before there is an answer
PROC: Final = Path("/proc")
_LISTENING: Final = "0A"  # the state of a socket in /proc/PID/net/tcp
_STREAMS_SHOWN: Final = 6


async def request_reload(target: str, *, dry_run: bool) -> dict[str, Any]:
    """Ask a process to follow its configuration; return what it answers.

    Args:
        target: the address of its status port, or its process id.
        dry_run: it only says what would change.

    Raises:
        ConfigError: the process refuses the configuration.
        ReloadRefused: the process can't reload at present.
        TransportError: nobody answers.
    """
    base = address_of(int(target)) if target.isdecimal() else target.rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise TransportError(target, "is no address: write http://host:port, or a process id")
    url = f"{base}/reload{'?dry_run=1' if dry_run else ''}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers={RELOAD_HEADER: "1"}) as client,
            client.post(url) as answer,
        ):
            status, body = answer.status, await answer.read()
    except (aiohttp.ClientError, TimeoutError) as failure:
        raise TransportError(url, str(failure) or type(failure).__name__) from None
    try:
        content: dict[str, Any] = orjson.loads(body)
        error = content.get("error", "")
    except (AttributeError, ValueError):
        raise TransportError(url, f"is not the status port of an ingestor ({status})") from None
    if status == 422:
        raise ConfigError(error)
    if status == 503:
        raise ReloadRefused(error.removeprefix("not reloaded: "))
    if status != 200:
        raise TransportError(url, error or f"HTTP {status}")
    return content


def address_of(pid: int, proc: Path = PROC) -> str:
    """Return the address of a process's status port: the only one on which it listens.

    Raises:
        ReloadRefused: where there is none, or the process is somebody else's.
    """
    folder = proc / str(pid)
    try:
        inodes = {_inode(item) for item in (folder / "fd").iterdir()}
    except FileNotFoundError:
        raise ReloadRefused(f"there is no process {pid}") from None
    except PermissionError:
        raise ReloadRefused(f"process {pid} is another user's") from None
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for inode, host, port in _listening((folder / "net" / name).read_text()):
                if inode in inodes:
                    return f"http://{host}:{port}"
    hint = f"`kill -HUP {pid}` reloads too, and the log says what came of it"
    raise ReloadRefused(f"process {pid} has no status port; {hint}")


def difference_text(content: dict[str, Any]) -> str:
    """Return an answer for people: a line for each step, and the sum at the end."""
    lines = [line for step in content["steps"] for line in _step_lines(step)]
    lines += [
        f"waits: {item['venue']} {item['market']} {item['name']} "
        f"({item['reason'].replace('_', ' ')}): {item['detail']}"
        for item in content["waiting"]
    ]
    if other := [name for name in content["settings"] if name != "feeds"]:
        lines.append(f"settings: {', '.join(other)}")
    subscribe, unsubscribe = content["subscribe"], content["unsubscribe"]
    sums = f"{subscribe:,} streams to subscribe, {unsubscribe:,} to unsubscribe"
    state = "applied" if content["applied"] else "dry run, nothing was changed"
    if not (subscribe or unsubscribe or content["steps"] or content["settings"]):
        sums = "nothing differs"
    lines.append(f"{sums}, {content['keep']:,} untouched: {state}")
    return "\n".join(map(printable, lines))


def _step_lines(step: dict[str, Any]) -> Iterator[str]:
    worker = f" of worker {step['worker']}" if "worker" in step else ""
    where = f"connection {step['connection']}{worker} {step['venue']} {step['market']}"
    pace = f"{step['requests']} requests in {step['seconds']:g} s"
    yield f"{step['action']} {where} {step['url']}" + (f": {pace}" if step["requests"] else "")
    for sign, name in (("+", "subscribe"), ("-", "unsubscribe")):
        streams = step[name]
        if streams:
            more = len(streams) - _STREAMS_SHOWN
            shown = " ".join(streams[:_STREAMS_SHOWN])
            yield f"  {sign} {shown}{f' and {more:,} more' if more > 0 else ''}"


def _inode(link: Path) -> str:
    with suppress(OSError):  # it was closed meanwhile
        return str(link.readlink()).removeprefix("socket:[").removesuffix("]")
    return ""


def _listening(table: str) -> Iterator[tuple[str, str, int]]:
    """Yield inode, host and port of each socket that listens (proc_net_tcp(5))."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == _LISTENING:
            yield fields[9], _host(address), int(port, 16)


def _host(text: str) -> str:
    """Return a host to connect to. text: hexadecimal, 32-bit words in the machine's order."""
    words = (bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    found = ip_address(b"".join(words))
    if isinstance(found, IPv6Address):
        return "[::1]" if found.is_unspecified else f"[{found}]"
    return "127.0.0.1" if found.is_unspecified else str(found)
