"""Send snapshots to open status pages as server-sent events, and remember the last 15 minutes.

One snapshot a second is taken for all viewers, and none while nobody looks, but for a point of the
history each five seconds. A viewer that reads slowly misses snapshots: nothing is queued for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import orjson
from aiohttp import web

from ingestor.telemetry.status import Status
from ingestor.telemetry.trouble import losses, wrong_now

VIEWERS_MAX: Final = 8
HISTORY_S: Final = 900.0
HISTORY_STEP_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 10.0
RETRY_MS: Final = 2000  # how long a page waits before it connects again
_POINTS: Final = int(HISTORY_S / HISTORY_STEP_S)

Point = tuple[int, int, int, float | None, float | None, float]


class LiveView:
    """Serve `/events`. `sample` is called about once a second."""

    def __init__(self, status: Callable[[], Status], headers: Mapping[str, str]) -> None:
        """Create the live view.

        Args:
            status: Takes a snapshot.
            headers: Go with every answer.
        """
        self._status = status
        self._headers = headers
        self._history: deque[Point] = deque(maxlen=_POINTS)
        self._viewers = 0
        self._newest = b""
        self._changed = asyncio.Event()
        self._next_point_s = 0.0
        self._stopping = asyncio.Event()

    def sample(self, now_s: float) -> None:
        """Take a snapshot if somebody looks or the history wants it. now_s: monotonic."""
        is_due = now_s >= self._next_point_s
        if not self._viewers and not is_due:
            return
        status = self._status()
        if is_due:
            self._next_point_s = now_s + HISTORY_STEP_S
            self._history.append(_point(status))
        if self._viewers:
            self._publish(_event("status", shown(status)))

    def stop(self) -> None:
        """End all streams of events."""
        self._stopping.set()
        self._changed.set()

    async def respond(
        self, request: web.Request, keep_alive: Callable[[web.Request], None]
    ) -> web.StreamResponse:
        """Send events until the viewer goes away. keep_alive: called after each event."""
        if self._viewers >= VIEWERS_MAX or self._stopping.is_set():
            return web.Response(status=503, text="too many pages are open\n")
        response = web.StreamResponse(
            headers={**self._headers, "Content-Type": "text/event-stream"}
        )
        self._viewers += 1
        try:
            await response.prepare(request)
            status = self._status()
            first = f"retry: {RETRY_MS}\n\n".encode()
            first += _event("history", {"points": [*self._history, _point(status)]})
            await self._write(response, first + _event("status", shown(status)))
            while not self._stopping.is_set():
                await self._changed.wait()
                if self._stopping.is_set():
                    break
                await self._write(response, self._newest)
                keep_alive(request)
        except (ConnectionError, TimeoutError):  # the viewer is gone, or reads nothing
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._viewers -= 1
        return response

    @staticmethod
    async def _write(response: web.StreamResponse, event: bytes) -> None:
        await asyncio.wait_for(response.write(event), WRITE_TIMEOUT_S)

    def _publish(self, event: bytes) -> None:
        self._newest = event
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def shown(status: Status) -> dict[str, object]:
    """Return a snapshot as the page shows it: with the words for what is wrong and was lost."""
    return {**status.to_json(), "wrong": wrong_now(status), "losses": losses(status)}


def _point(status: Status) -> Point:
    return (
        status.time_ns,
        status.rows_appended,
        status.frames,
        status.lag_p50_ms,
        status.lag_p99_ms,
        status.fullest[1],
    )


def _event(name: str, content: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(content))
