"""Settings of the live connections."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Final

from ingestor.adapter import Handshake
from ingestor.model.backoff import Backoff
from ingestor.model.clocks import Clocks
from ingestor.sources.live.health import HealthTimeouts
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.websocket.interface import RECEIVE_BUFFER_BYTES, ConnectOptions

_LASTING: Final = Backoff(base_s=30.0, cap_s=300.0, floor_s=5.0)


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """open_timeout_s: name, TCP, TLS and handshake. receive_buffer_bytes: SO_RCVBUF.

    lasting: the backoff after answers such as 403. too_many_s: how long a venue is left alone after
    429 or 418 without Retry-After. attempts_max: connections being opened at the same time, per
    venue and source address. attempt_interval_s: between the starts of two attempts of one line.
    connects: (per second, burst) instead of the venue's limits, for our own server.
    """

    open_timeout_s: float = 10.0
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES
    patience: HealthTimeouts = field(default_factory=HealthTimeouts)
    backoff: Backoff = field(default_factory=Backoff)
    lasting: Backoff = _LASTING
    too_many_s: float = 10.0
    attempts_max: int = 64
    attempt_interval_s: float = 1.0
    connects: tuple[float, int] | None = None

    def connect_options(
        self,
        planned: PlannedConnection,
        ssl_context: ssl.SSLContext | None,
        clocks: Clocks,
        handshake: Handshake | None = None,
    ) -> ConnectOptions:
        """Return how a connection is opened.

        Args:
            planned: the connection.
            ssl_context: None for the system's certificates.
            clocks: whose wall clock stamps its frames.
            handshake: what the venue said over REST of where to connect.
        """
        told = handshake or Handshake()
        return ConnectOptions(
            url=told.url or planned.url,
            secret=told.secret,
            headers=dict(planned.headers),
            ssl_context=ssl_context,
            frame_bytes_max=planned.limits.frame_bytes_max,
            open_timeout_s=self.open_timeout_s,
            receive_buffer_bytes=self.receive_buffer_bytes,
            source_address=planned.source_address,
            proxy=planned.route.proxy,
            permessage_deflate=planned.route.permessage_deflate,
            clock_ns=clocks.wall_ns,
        )
