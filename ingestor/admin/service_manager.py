"""Tell a service manager that the program is ready, alive, and stopping (sd_notify).

systemd, with `Type=notify`, names a datagram socket in NOTIFY_SOCKET. With `WatchdogSec=` it wants
a sign of life within WATCHDOG_USEC, and ends the program where none comes: a task of the event loop
gives it, so that a loop that hangs is found. Without these variables nothing is sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final

import structlog

log = structlog.get_logger(__name__)

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"
_SIGNS: Final = 3.0  # of life in the time that is allowed for one


class ServiceManager:
    """Sends what is to be told. Nothing here waits, and nothing raises."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """Create the service manager.

        Args:
            address: of the socket, "@" first for an abstract one; "" for nobody to tell.
            watchdog_s: within which a sign of life is wanted; 0 for never.
        """
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._has_failed = False

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> ServiceManager:
        """Return the one that an environment names.

        Args:
            environment: of the process.
            pid: of this process. A watchdog that watches another one is left to that.
        """
        microseconds, watched = (
            environment.get("WATCHDOG_USEC", ""),
            environment.get("WATCHDOG_PID"),
        )
        is_ours = watched in {None, "", str(pid)}
        wanted = is_ours and microseconds.isascii() and microseconds.isdecimal()
        return cls(environment.get("NOTIFY_SOCKET", ""), int(microseconds) / 1e6 if wanted else 0.0)

    def tell(self, state: str) -> None:
        """Send a state. What can't be sent is logged once."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
                one.sendto(state.encode(), self._address)
        except (OSError, ValueError) as failure:
            if not self._has_failed:
                log.warning("service_manager.not_told", state=state, reason=repr(failure))
            self._has_failed = True

    async def watch(self) -> None:
        """Give signs of life for as long as the loop turns, where they are wanted."""
        if not (self._address and self.watchdog_s > 0):
            return
        while True:
            self.tell(ALIVE)
            await asyncio.sleep(self.watchdog_s / _SIGNS)


def service_manager() -> ServiceManager:
    """Return the service manager of this process."""
    return ServiceManager.of(os.environ, os.getpid())
