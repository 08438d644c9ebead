"""The floor: a picows client that only parses, `python -m benchmarks.peers.minimum_client OPTIONS`.

uvloop's own transport with a small read buffer, one connection for each stream, `orjson.loads` of
every frame, and nothing else but a look at the clock every 64th time. With "parse": false it copies
the payload instead.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.harness.child_process import answer, options, say
from benchmarks.harness.lags import percentiles_ms
from ingestor.sources.websocket.picows import LIBRARY_BUFFER_BYTES
from ingestor.testbed.simulated.dialects import SimulatedDialect

AT_ONCE: Final = 50  # handshakes under way
LAG_EACH: Final = 64  # frames, a power of two: of one in so many the lag is taken


class _Reader(WSListener):
    """Subscribes to one stream and copies what comes."""

    def __init__(self, counts: list[int], stream: str) -> None:
        self._counts = counts
        self._stream = stream

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, orjson.dumps({"op": "subscribe", "streams": [self._stream]}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        frame.get_payload_as_bytes()
        self._counts[0] += 1


class _Parser(_Reader):
    """Subscribes to one stream and parses what comes. lags_ns: from sending to having parsed."""

    def __init__(self, counts: list[int], lags_ns: list[int], stream: str) -> None:
        super().__init__(counts, stream)
        self._lags_ns = lags_ns

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message = orjson.loads(frame.get_payload_as_memoryview())
        self._counts[0] += 1
        if not self._counts[0] & (LAG_EACH - 1) and "t" in message:
            self._lags_ns.append(time.time_ns() - message["t"])


async def run(given: dict[str, Any]) -> None:
    """given: url, connections, parse (true when left out)."""
    counts = [0]
    lags_ns: list[int] = []
    gate = asyncio.Semaphore(AT_ONCE)
    connected: list[WSTransport] = []

    def listener(stream: str) -> WSListener:
        if given.get("parse", True):
            return _Parser(counts, lags_ns, stream)
        return _Reader(counts, stream)

    async def open_one(stream: str) -> None:
        async with gate:
            transport, _ = await ws_connect(
                lambda: listener(stream),
                given["url"],
                read_buffer_init_size=LIBRARY_BUFFER_BYTES,
                use_aiofastnet=False,
            )
            connected.append(transport)

    def sample() -> dict[str, Any]:
        lag_ms = percentiles_ms(lags_ns)
        lags_ns.clear()
        return {"frames": counts[0], "connected": len(connected), "lag_ms": lag_ms}

    dialect = SimulatedDialect()
    streams = [f"trade:{dialect.symbol(number)}" for number in range(given["connections"])]
    opening = asyncio.gather(*map(open_one, streams))
    say({"connections": len(streams)})
    await answer(sample)
    opening.cancel()
    for transport in connected:
        transport.disconnect(False)
    say({"frames": counts[0]})


if __name__ == "__main__":
    uvloop.run(run(options()))
