"""The floor: a picows client that only parses, `python -m benchmarks.floor_client OPTIONS`.

The same transport settings as the ingestor's, one connection for each stream, `orjson.loads` of
every frame, and nothing else.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.child import answer, options, say
from ingestor.edge.simulated.dialects import SimulatedDialect
from ingestor.edge.transport.picows import READ_BUFFER_BYTES

AT_ONCE: Final = 50  # handshakes under way


class _Parser(WSListener):
    """Subscribes to one stream and parses what comes."""

    def __init__(self, counts: list[int], stream: str) -> None:
        self._counts = counts
        self._stream = stream

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, orjson.dumps({"op": "subscribe", "streams": [self._stream]}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        orjson.loads(frame.get_payload_as_memoryview())
        self._counts[0] += 1


async def run(given: dict[str, Any]) -> None:
    counts = [0]
    gate = asyncio.Semaphore(AT_ONCE)
    connected: list[WSTransport] = []

    async def open_one(stream: str) -> None:
        async with gate:
            transport, _ = await ws_connect(
                lambda: _Parser(counts, stream),
                given["url"],
                read_buffer_init_size=READ_BUFFER_BYTES,
                use_aiofastnet=False,
            )
            connected.append(transport)

    dialect = SimulatedDialect()
    streams = [f"trade:{dialect.symbol(number)}" for number in range(given["connections"])]
    opening = asyncio.gather(*map(open_one, streams))
    say({"connections": len(streams)})
    await answer(lambda: {"frames": counts[0], "connected": len(connected)})
    opening.cancel()
    for transport in connected:
        transport.disconnect(False)
    say({"frames": counts[0]})


if __name__ == "__main__":
    uvloop.run(run(options()))
