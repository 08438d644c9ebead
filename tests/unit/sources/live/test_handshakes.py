"""What is asked of a venue before connections, and how long the answer is good.

tests/network/test_rest_handshakes.py has it with real servers.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from feeds.simulated import Simulated
from ingestor.adapter import Handshake, RestRequest
from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.handshakes import Handshakes
from ingestor.sources.live.plan import PlannedConnection, Route, Wanted, make_plan
from ingestor.sources.rest.client import RestSettings
from ingestor.sources.rest.pool import RestPools


class Acme(Simulated):
    valid_s: ClassVar[float] = 10.0

    @classmethod
    def handshake_request(cls, market: str) -> RestRequest:
        return RestRequest("/token", body=b"")

    @classmethod
    def read_handshake(cls, market: str, body: bytes) -> Handshake:
        return Handshake(body.decode(), f"token={market}", cls.valid_s)


class Pools(RestPools):
    """Gives these answers in place of a venue's."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__()
        self.answers = list(answers)

    async def client(self, adapter: object, market: str, origin: str) -> Pools:  # type: ignore[override]
        return self

    async def get(self, url: str, request: RestRequest, settings: RestSettings) -> bytes:
        await asyncio.sleep(0)
        return self.answers.pop(0)


class Time:
    now_ns = 0

    def clocks(self) -> Clocks:
        return Clocks(steady_ns=lambda: self.now_ns)


def planned(adapter: type[Simulated] = Acme, *origins: str) -> PlannedConnection:
    table = InstrumentTable(
        [instrument("simulated", "spot", "A", "A-USD", "A", "USD", "0.01", "0.01")]
    )
    route = Route(origins=origins)
    [connection] = make_plan([Wanted(adapter, "spot", [0], ["trades"], route)], table)
    return connection


async def test_who_need_not_be_asked_is_not() -> None:
    assert await Handshakes(Pools(), Clocks()).of(planned(Simulated)) is None


async def test_one_answer_serves_all_until_it_expires() -> None:
    time = Time()
    handshakes = Handshakes(Pools(b"wss://one/p", b"wss://two/p"), time.clocks())
    connection = planned()
    found = await asyncio.gather(*(handshakes.of(connection) for _ in range(5)))
    assert found == [Handshake("wss://one/p", "token=spot", 10.0)] * 5
    time.now_ns = 9_900_000_000
    assert (await handshakes.of(connection)) == found[0]
    time.now_ns = 10_000_000_000
    assert (await handshakes.of(connection)) == Handshake("wss://two/p", "token=spot", 10.0)


async def test_what_was_refused_is_asked_for_anew() -> None:
    handshakes = Handshakes(Pools(b"wss://one/p", b"wss://two/p"), Clocks())
    await handshakes.of(planned())
    handshakes.forget(planned())
    found = await handshakes.of(planned())
    assert found is not None
    assert found.url == "wss://two/p"


async def test_a_configured_server_takes_the_place_of_the_one_told() -> None:
    found = await Handshakes(Pools(b"wss://one/p"), Clocks()).of(planned(Acme, "ws://127.0.0.1:9"))
    assert found is not None
    assert found.url == "ws://127.0.0.1:9/p"


async def test_an_address_that_is_no_websocket_is_refused() -> None:
    with pytest.raises(TransportError, match="can't be read"):
        await Handshakes(Pools(b"https://one/p"), Clocks()).of(planned())


def test_the_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(Handshake("wss://x", "token=s3cret"))
