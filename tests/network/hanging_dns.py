"""Runs in namespaces of its own: a DNS server that leaves some names unanswered, and our clients.

Prints one JSON object and exits. `test_dns.py` starts it, and sees how long that takes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time

import uvloop
from aiohttp import web

from ingestor.adapter import RestRequest
from ingestor.model.errors import TransportError
from ingestor.sources.rest.client import RestClient, RestSettings
from ingestor.sources.websocket import picows, websockets
from ingestor.sources.websocket.interface import ConnectOptions
from tests.network.test_transport import Listener, hold, venue

HANGING = 12  # connections to the name that hangs; libuv's pool has 4 threads


def serve_dns(bound: socket.socket) -> None:
    """Answer 127.0.0.1 to questions for IPv4, nothing for IPv6, and leave `hang*` alone."""
    while True:
        query, client = bound.recvfrom(4096)
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]])
            at += query[at] + 1
        if labels[0].startswith(b"hang"):
            continue
        is_ipv4 = struct.unpack_from(">H", query, at + 1)[0] == 1
        head = query[:2] + b"\x81\x80\0\1" + struct.pack(">H", is_ipv4) + b"\0\0\0\0"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if is_ipv4 else b""
        bound.sendto(head + query[12 : at + 5] + answer, client)


async def timed(work: object) -> float:
    begun_s = time.monotonic()
    await work  # type: ignore[misc]
    return time.monotonic() - begun_s


async def main() -> None:
    """Let many connections hang, and time what others do meanwhile."""

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rest_port = runner.addresses[0][1]
    async with venue(hold) as url:
        port = url.rsplit(":", 1)[1]
        hanging = [
            asyncio.create_task(connect(ConnectOptions(f"ws://hang.test:{port}"), Listener()))
            for connect in (picows.connect, websockets.connect)
            for _ in range(HANGING // 2)
        ]
        await asyncio.sleep(0.5)
        took_s = {}
        for name, connect in (("picows", picows.connect), ("websockets", websockets.connect)):
            options = ConnectOptions(f"ws://{name}.good.test:{port}")
            took_s[name] = await timed(connect(options, Listener()))
        async with RestClient(RestSettings(timeout_s=10.0)) as client:
            base = f"http://rest.good.test:{rest_port}"
            took_s["rest"] = await timed(client.get(base, RestRequest("/")))
        failures = await asyncio.gather(*hanging, return_exceptions=True)
        print(
            json.dumps(
                {
                    "took_s": took_s,
                    "foreseen": all(isinstance(one, TransportError) for one in failures),
                    "failure": str(failures[0]),
                    "threads": sum("hang.test" in one.name for one in threading.enumerate()),
                }
            ),
            flush=True,
        )
    await runner.cleanup()


if __name__ == "__main__":
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind(("127.0.0.77", 53))
    threading.Thread(target=serve_dns, args=(listening,), daemon=True).start()
    uvloop.run(main())
