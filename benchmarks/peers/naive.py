"""The pipeline that a user would write in an afternoon: `python -m benchmarks.peers.naive OPTIONS`.

websockets `recv`, orjson, exact Decimal fields, orjson, one aiokafka `send` per tick with lz4 and
acks=all. It reads the same frames from the same load server and writes to the same broker as the
ingestor. It has no books, no ledger, no reconnects, no metrics.
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaProducer
from websockets.asyncio.client import connect

from benchmarks.harness.child_process import answer, options, say

MESSAGE_BYTES_MAX = 8 << 20


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError


def _trade(data: dict[str, Any], received_ns: int) -> dict[str, Any]:
    return {
        "venue": "binance",
        "symbol": data["s"],
        "price": Decimal(data["p"]),
        "size": Decimal(data["q"]),
        "side": "sell" if data["m"] else "buy",
        "id": data["t"],
        "time": data["T"],
        "received": received_ns,
    }


def _quote(data: dict[str, Any], received_ns: int) -> dict[str, Any]:
    return {
        "venue": "binance",
        "symbol": data["s"],
        "bid": Decimal(data["b"]),
        "bid_size": Decimal(data["B"]),
        "ask": Decimal(data["a"]),
        "ask_size": Decimal(data["A"]),
        "received": received_ns,
    }


def _book(data: dict[str, Any], received_ns: int) -> dict[str, Any]:
    return {
        "venue": "binance",
        "symbol": data["s"],
        "bids": [(Decimal(price), Decimal(size)) for price, size in data["b"]],
        "asks": [(Decimal(price), Decimal(size)) for price, size in data["a"]],
        "first": data["U"],
        "last": data["u"],
        "received": received_ns,
    }


class Pipeline:
    """One reader for each connection. messages: that were handed to the producer."""

    def __init__(self, url: str, producer: AIOKafkaProducer) -> None:
        self.messages = 0
        self.connected = 0
        self._url = url
        self._producer = producer

    async def read(self, streams: list[str]) -> None:
        async with connect(
            self._url, compression=None, max_size=MESSAGE_BYTES_MAX, proxy=None
        ) as socket:
            request = {"method": "SUBSCRIBE", "params": streams, "id": 1}
            await socket.send(orjson.dumps(request).decode())
            self.connected += 1
            while True:
                data = orjson.loads(await socket.recv(decode=False))
                if "s" not in data:
                    continue
                received_ns = time.time_ns()
                if "p" in data:
                    record = _trade(data, received_ns)
                elif "U" in data:
                    record = _book(data, received_ns)
                else:
                    record = _quote(data, received_ns)
                value = orjson.dumps(record, default=_text)
                await self._producer.send("afternoon", value, key=data["s"].encode())
                self.messages += 1


async def run(given: dict[str, Any]) -> None:
    """given: url, bootstrap, connections (a list of streams for each)."""
    producer = AIOKafkaProducer(
        bootstrap_servers=given["bootstrap"],
        compression_type="lz4",
        acks="all",
        linger_ms=10,
        enable_idempotence=True,
    )
    await producer.start()
    pipeline = Pipeline(given["url"], producer)
    readers = [asyncio.create_task(pipeline.read(streams)) for streams in given["connections"]]
    say({"connections": len(readers)})
    await answer(lambda: {"frames": pipeline.messages, "connected": pipeline.connected})
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await producer.stop()
    say({"frames": pipeline.messages})


if __name__ == "__main__":
    uvloop.run(run(options()))
