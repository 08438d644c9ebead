"""The pipeline that a user would write in an afternoon, as a process of its own.

websockets `recv`, orjson, exact Decimal fields, orjson, one aiokafka `send` per tick, lz4, acks=all.
It reads the same frames from the same load server and writes to the same broker as the ingestor.
Prints one JSON line: messages, rows, seconds, cpu_s.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from decimal import Decimal
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaProducer
from websockets.asyncio.client import connect


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


async def _read(url: str, subscribe: str, producer: AIOKafkaProducer, counts: list[int]) -> None:
    async with connect(url, compression=None, max_size=8 << 20, proxy=None) as socket:
        if subscribe:
            await socket.send(subscribe)
        while True:
            message = orjson.loads(await socket.recv(decode=False))
            data = message.get("data")
            if data is None:
                continue
            received_ns = time.time_ns()
            if "p" in data:
                record = _trade(data, received_ns)
            elif "U" in data:
                record = _book(data, received_ns)
            else:
                record = _quote(data, received_ns)
            value = orjson.dumps(record, default=_text)
            await producer.send("afternoon", value, key=data["s"].encode())
            counts[0] += 1


async def _main(options: argparse.Namespace) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=options.bootstrap,
        compression_type="lz4",
        acks="all",
        linger_ms=10,
        enable_idempotence=True,
    )
    await producer.start()
    counts = [0]
    readers = [
        asyncio.create_task(_read(url, options.subscribe, producer, counts))
        for url in options.urls
        for _ in range(options.connections)
    ]
    await asyncio.sleep(options.warmup)
    first, cpu, started = counts[0], _cpu_s(), time.monotonic()
    await asyncio.sleep(options.seconds)
    messages, cpu_s, seconds = counts[0] - first, _cpu_s() - cpu, time.monotonic() - started
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await producer.stop()
    print(orjson.dumps({"messages": messages, "seconds": seconds, "cpu_s": cpu_s}).decode())


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--connections", type=int, default=1, help="to each address")
    parser.add_argument("--subscribe", default="", help="text frame sent after opening")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    uvloop.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
