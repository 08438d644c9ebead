"""cryptofeed as a user would run it: `python -m benchmarks.peers.cryptofeed OPTIONS`.

Its Binance feed, its queue and its Kafka backend with their own defaults, but for three things. The
addresses are the load server's on loopback: unencrypted, and the streams that cryptofeed names in
its address are asked for by a message. Ten connections, as the other pipelines have. And a full
queue makes it wait; the default is to drop the oldest, which would be counted as done.
Runs in an environment of its own, see `peers.py`. cryptofeed is licensed under the AGPL: it is
installed and called, nothing of it is here.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from typing import Any, Final

import uvloop
from cryptofeed import FeedHandler, connection
from cryptofeed.backends.kafka import TradeKafka
from cryptofeed.connection import (
    RestEndpoint,
    Routes,
    WebsocketEndpoint,
)
from cryptofeed.defines import TRADES
from cryptofeed.exchanges import Binance

from benchmarks.harness.child_process import answer, options, say

QUEUE_MESSAGES: Final = 10_000  # its default


def point_to(url: str, rest: str, streams_per_connection: int) -> None:
    """Point cryptofeed's Binance feed to the load server."""
    instruments = Binance.rest_endpoints[0].routes.instruments
    Binance.rest_endpoints = [RestEndpoint(rest, routes=Routes(instruments))]
    Binance.websocket_endpoints = [WebsocketEndpoint(url.replace("ws://", "wss://"))]
    Binance.per_connection_limit = streams_per_connection
    opened = connection.connect

    async def connect(address: str, **arguments: Any) -> Any:
        socket = await opened(url, compression=None, **arguments)
        streams = address.partition("streams=")[2].split("/")
        await socket.send(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}))
        await socket.recv()
        return socket

    connection.connect = connect


async def run(given: dict[str, Any]) -> None:
    """given: url, rest, bootstrap, streams_per_connection."""
    point_to(given["url"], given["rest"], given["streams_per_connection"])
    await Binance.load_symbols(refresh=True)
    backend = TradeKafka(
        bootstrap_servers=given["bootstrap"],
        compression_type="lz4",
        acks="all",
        linger_ms=10,
        enable_idempotence=True,
        overflow="block",
        max_depth=QUEUE_MESSAGES,
    )
    handler = FeedHandler(config={"log": {"disabled": True}})
    handler.add_feed(
        Binance(symbols=Binance.symbols(), channels=[TRADES], callbacks={TRADES: backend})
    )
    running = asyncio.create_task(handler.run_async(install_signal_handlers=False))

    def sample() -> dict[str, Any]:
        if running.done():
            running.result()
        links = connection.connection_stats("BINANCE").values()
        connected = sum(one.open and ".ws." in one.id for one in links)
        return {"frames": backend.stats.written, "connected": connected}

    say({})
    await answer(sample)
    running.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # where it keeps the list of symbols
        uvloop.run(run(options()))
