"""ingestor.cli.reload: addresses of processes, answers of ports, texts for people."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ingestor.admin.server import RELOAD_HEADER
from ingestor.cli.reload import address_of, difference_text, request_reload
from ingestor.model.errors import ConfigError, ReloadRefused, TransportError

ANSWER: dict[str, Any] = {
    "applied": True,
    "dry_run": False,
    "settings": ["feeds", "log.level"],
    "subscribe": 8,
    "unsubscribe": 1,
    "keep": 1500,
    "steps": [
        {
            "worker": 1,
            "action": "change",
            "connection": 3,
            "venue": "okx",
            "market": "spot",
            "url": "wss://okx.example",
            "subscribe": [f"trades:{number}" for number in range(8)],
            "unsubscribe": ["trades:\x1b[2J"],
            "requests": 2,
            "seconds": 0.5,
        }
    ],
    "waiting": [
        {
            "venue": "okx",
            "market": "swap",
            "name": "BTC-USDT-PERP",
            "reason": "no_list",
            "detail": "no list yet",
        }
    ],
}


@pytest.mark.parametrize(
    ("family", "host", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::1", "[::1]"),
        (socket.AF_INET6, "::", "[::1]"),
    ],
)
def test_a_process_is_found_by_the_port_on_which_it_listens(
    family: socket.AddressFamily, host: str, shown: str
) -> None:
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert address_of(os.getpid()) == f"http://{shown}:{port}"


def test_a_process_without_a_port_or_none_at_all_is_one_sentence() -> None:
    with pytest.raises(ReloadRefused, match="there is no process 4194304"):
        address_of(4_194_304)
    with pytest.raises(ReloadRefused, match="kill -HUP"):
        address_of(os.getpid())


async def answering(status: int, body: bytes) -> tuple[TestServer, list[web.Request]]:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=status, body=body)

    application = web.Application()
    application.router.add_post("/reload", answer)
    return TestServer(application), seen


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (422, b'{"error": "c.toml: is wrong"}', ConfigError),
        (503, b'{"error": "not reloaded: it stops"}', ReloadRefused),
        (403, b'{"error": "only from this machine"}', TransportError),
        (404, b"Not Found", TransportError),
        (200, b"[]", TransportError),
    ],
)
async def test_each_refusal_has_its_error(status: int, body: bytes, error: type) -> None:
    server, _ = await answering(status, body)
    async with server:
        with pytest.raises(error) as refused:
            await request_reload(str(server.make_url("/")), dry_run=False)
    assert "\n" not in str(refused.value)


async def test_the_port_is_asked_as_no_web_page_can() -> None:
    server, seen = await answering(200, b'{"applied": false}')
    async with server:
        url = str(server.make_url("/"))
        assert await request_reload(url, dry_run=True) == {"applied": False}
        await request_reload(url, dry_run=False)
    assert all(RELOAD_HEADER in request.headers for request in seen)
    assert [request.query_string for request in seen] == ["dry_run=1", ""]
    with pytest.raises(TransportError, match="is no address"):
        await request_reload("localhost:9464", dry_run=True)
    with pytest.raises(TransportError):
        await request_reload(url, dry_run=True)  # it is gone


def test_a_difference_is_a_line_for_each_step_and_a_sum() -> None:
    assert difference_text(ANSWER).splitlines() == [
        "change connection 3 of worker 1 okx spot wss://okx.example: 2 requests in 0.5 s",
        "  + trades:0 trades:1 trades:2 trades:3 trades:4 trades:5 and 2 more",
        "  - trades:\\x1b[2J",
        "waits: okx swap BTC-USDT-PERP (no list): no list yet",
        "settings: log.level",
        "8 streams to subscribe, 1 to unsubscribe, 1,500 untouched: applied",
    ]
    nothing = {"settings": [], "subscribe": 0, "unsubscribe": 0, "steps": [], "waiting": []}
    text = difference_text(ANSWER | nothing | {"applied": False})
    assert text == "nothing differs, 1,500 untouched: dry run, nothing was changed"
