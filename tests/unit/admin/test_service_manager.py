"""What a service manager is told, over a real socket."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.admin.service_manager import ALIVE, READY, ServiceManager, service_manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET, and the socket behind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        if request.param == "path":
            address = str(tmp_path / "notify")
            one.bind(address)
        else:
            address = f"@ingestor-{uuid.uuid4().hex}"
            one.bind("\0" + address[1:])
        yield address, one


def test_a_state_is_told(manager: tuple[str, socket.socket]) -> None:
    address, received = manager
    ServiceManager.of({"NOTIFY_SOCKET": address}, 1).tell(READY)
    assert received.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_that_of_this_process(
    environment: dict[str, str], watchdog_s: float
) -> None:
    assert ServiceManager.of(environment, 7).watchdog_s == watchdog_s


async def test_signs_of_life_stop_with_the_loop(manager: tuple[str, socket.socket]) -> None:
    address, received = manager
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "150000"}
    watching = asyncio.create_task(ServiceManager.of(environment, 1).watch())
    loop = asyncio.get_running_loop()
    for _ in range(4):
        async with asyncio.timeout(5):
            assert await loop.sock_recv(received, 100) == ALIVE.encode()
    time.sleep(0.4)  # a loop that hangs
    with pytest.raises(BlockingIOError):
        received.recv(100)
    watching.cancel()


async def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    nobody = service_manager()
    nobody.tell(READY)
    await nobody.watch()  # at once
    for address in (str(tmp_path / "absent"), "x" * 500, "a\0b"):
        gone = ServiceManager(address, 1.0)
        gone.tell(READY)
        gone.tell(READY)
