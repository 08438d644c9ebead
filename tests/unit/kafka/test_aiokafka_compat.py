"""The private parts of aiokafka: their version, and requests to a broker whose socket was lost a
moment ago, before aiokafka learned of it."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import uvloop
from aiokafka import errors
from aiokafka.protocol.admin import ApiVersionRequest

from ingestor.kafka.aiokafka_compat import (
    REVIEWED_VERSION,
    AIOKafkaConnection,
    create_conn,
    fail_writes_to_lost_sockets,
)
from ingestor.testbed.broker import DevBroker

LOCK = Path(__file__).parents[3] / "requirements.lock"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


async def connect_and_lose() -> AIOKafkaConnection:
    """Return a connection that a reset has reached and nobody has read.

    It goes through a relay, which passes the one request and answer of aiokafka's greeting.
    """
    loop = asyncio.get_running_loop()
    with DevBroker() as broker, socket.create_server(("127.0.0.1", 0)) as listening:
        host, _, port = broker.bootstrap_servers.partition(":")
        connecting = asyncio.create_task(create_conn(*listening.getsockname(), client_id="me"))
        listening.setblocking(False)
        near, _ = await loop.sock_accept(listening)
        with near, socket.create_connection((host, int(port))) as far:
            near.setblocking(False)
            far.setblocking(False)
            await loop.sock_sendall(far, await loop.sock_recv(near, 1 << 16))
            await loop.sock_sendall(near, await loop.sock_recv(far, 1 << 16))
            connection = await connecting
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        return connection


async def send_until_it_is_known() -> list[BaseException | None]:
    """Send in each turn of the loop until the loss is known; return what became of each request."""
    connection = await connect_and_lose()
    sent: list[asyncio.Task[object]] = []

    async def send() -> None:
        await connection.send(ApiVersionRequest())

    while connection.connected():
        sent.append(asyncio.create_task(send()))
        await asyncio.sleep(0)
    await asyncio.wait(sent, timeout=5)
    return [one.exception() for one in sent]


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_request_to_a_lost_socket_fails_as_one_to_kafka(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Whether it was written or refused; uvloop refuses with an error of its own."""
    fail_writes_to_lost_sockets()
    with asyncio.Runner(loop_factory=loop) as runner:
        failures = runner.run(send_until_it_is_known())
    assert failures
    assert {type(failure) for failure in failures} == {errors.KafkaConnectionError}


def test_the_locked_version_is_the_one_whose_private_parts_were_reviewed() -> None:
    """After an upgrade: read each part that the module lists, then change its constant."""
    locked = re.findall(r"^aiokafka==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert locked == [REVIEWED_VERSION] == [version("aiokafka")]
