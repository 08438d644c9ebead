"""Ask venues over REST where a connection is to be opened, and with which token."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

from ingestor.adapter import HasHandshake
from ingestor.adapter.contract import Handshake
from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.sources.live.plan import PlannedConnection, at_origin
from ingestor.sources.rest.client import RestSettings
from ingestor.sources.rest.pool import RestPools

_REST: Final = RestSettings(timeout_s=10.0, body_bytes_max=1 << 16, attempts_max=1)
_Place = tuple[str, str, str]  # venue, market, REST host
_SCHEMES: Final = frozenset({"ws", "wss"})


class Handshakes:
    """The answers that are still good, one for each market and REST host.

    Connections that wait for the same answer share one request. No answer is kept on disk.
    """

    def __init__(self, pools: RestPools, clocks: Clocks) -> None:
        """pools: ask the venues. clocks: those of the process."""
        self._pools = pools
        self._clocks = clocks
        self._kept: dict[_Place, tuple[float, Handshake]] = {}  # until when, by its steady clock
        self._locks: dict[_Place, asyncio.Lock] = {}

    async def of(self, planned: PlannedConnection) -> Handshake | None:
        """Return where a connection is to be opened; None where its venue need not be asked.

        Raises TransportError: as the REST client does, and for an answer that can't be read.
        """
        adapter = planned.adapter
        if not issubclass(adapter, HasHandshake):
            return None
        place = _place_of(planned)
        async with self._locks.setdefault(place, asyncio.Lock()):
            until_s, handshake = self._kept.get(place, (0.0, None))
            if handshake is None or self._clocks.steady_s() >= until_s:
                handshake = await self._asked(planned, adapter)
                until_s = self._clocks.steady_s() + max(0.0, handshake.valid_s)
                self._kept[place] = until_s, handshake
            return _at_route(handshake, planned)

    def forget(self, planned: PlannedConnection) -> None:
        """Ask anew for the next connection: the venue refused this one."""
        self._kept.pop(_place_of(planned), None)

    async def _asked(self, planned: PlannedConnection, adapter: type[HasHandshake]) -> Handshake:
        market, rest_url = planned.market, planned.rest_url
        client = await self._pools.client(planned.adapter, market, rest_url)
        body = await client.get(rest_url, adapter.handshake_request(market), _REST)
        try:
            return _checked(adapter.read_handshake(market, body))
        except TransportError:
            raise
        except Exception as failure:  # noqa: BLE001  # an adapter may raise anything for an answer
            reason = f"the handshake over REST can't be read: {type(failure).__name__}"
            raise TransportError(rest_url, reason) from None


def _checked(handshake: Handshake) -> Handshake:
    if handshake.url and urlsplit(handshake.url).scheme not in _SCHEMES:
        raise ValueError("it names no websocket")
    return handshake


def _place_of(planned: PlannedConnection) -> _Place:
    return planned.venue, planned.market, planned.rest_url


def _at_route(handshake: Handshake, planned: PlannedConnection) -> Handshake:
    """Lead to the configured server where there is one; the path stays the venue's."""
    if not (handshake.url and planned.route.origins):
        return handshake
    origin = planned.url
    return Handshake(at_origin(handshake.url, origin), handshake.secret, handshake.valid_s)
