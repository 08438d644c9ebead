"""The simulated venue's options, streams, faults and counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import time_ns
from typing import Protocol

from ingestor.testbed.simulated.dialects import OWN, Kind
from ingestor.testbed.simulated.market import NUMBER_FIRST, Encoded, Fields, Shape


class Subscriber(Protocol):
    """A client, as a stream sees it."""

    blocked: bool
    raw: asyncio.Transport | None


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """rate_per_s: messages of each subscribed stream; 0 = as many as are read. hosts, ports: one
    server on each pair; port 0 takes a free one. tick_s: how often what is due is sent.
    """

    symbols: int = 10
    rate_per_s: float = 10.0
    dialect: str = OWN
    shape: Shape = field(default_factory=Shape)
    hosts: tuple[str, ...] = ("127.0.0.1",)
    ports: tuple[int, ...] = (0,)
    seed: int = 1
    tick_s: float = 0.002
    heartbeat_s: float = 5.0


@dataclass(slots=True)
class SimulatorStatistics:
    """Sums since the start. cpu_s: of the whole process."""

    connections: int = 0
    accepted: int = 0
    refused: int = 0
    streams: int = 0
    frames: int = 0
    bytes: int = 0
    cpu_s: float = 0.0
    uptime_s: float = 0.0


@dataclass(slots=True)
class Symbol:
    """number: of its last book update. trade: of its last print. place: in its walk."""

    name: bytes
    lower: bytes
    price_walk: int
    place: int = 0
    number: int = NUMBER_FIRST
    trade: int = NUMBER_FIRST
    book_streams: int = 0


class Stream:
    """One kind of one symbol, and who hears it."""

    __slots__ = ("blocked", "clients", "events", "kind", "name", "symbol")

    def __init__(self, name: str, kind: Kind, symbol: Symbol, events: list[Encoded]) -> None:
        self.name = name
        self.kind = kind
        self.symbol = symbol
        self.events = events
        self.clients: list[Subscriber] = []
        self.blocked = 0  # clients whose buffer is full: the stream waits for them

    def advance(self, time_text: bytes, millis: bytes) -> bytes:
        """Return the next frame. The book moves the market; without one, quotes do."""
        symbol, kind = self.symbol, self.kind
        if kind in {"trade", "aggregate"}:
            symbol.trade += 1
            number, place = symbol.trade, symbol.trade % len(self.events)
        else:
            if kind == "book" or not symbol.book_streams:
                symbol.place = (symbol.place + 1) % len(self.events)
                symbol.number += 1
            number, place = symbol.number, symbol.place
        return self.events[place].encode(
            (symbol.name, symbol.lower, b"%d" % number, time_text, millis)
        )


@dataclass(slots=True)
class Faults:
    """Say what goes wrong on demand. Counters count down with each event that they spoil."""

    malformed: int = 0  # frames that are cut off
    gaps: int = 0  # book updates that are left out
    duplicates: int = 0  # frames that are sent twice
    refuse: int = 0  # handshakes answered with `status`
    status: int = 503
    retry_after_s: int | None = None
    stalled_until_s: float = 0.0  # open, silent but for heartbeats; the clock of time()
    deaf: bool = False  # requests are not answered
    listed: int = 0  # only so many of its symbols are in its list; 0 = all
    halted: frozenset[str] = frozenset()  # symbols that say nothing
    rate_factor: float = 1.0  # of the rate: a burst above 1
    bad_symbols: set[str] = field(default_factory=set)  # refused when subscribed to

    @property
    def spoils(self) -> bool:
        return bool(self.malformed or self.gaps or self.duplicates)


def fields_of(symbol: Symbol, number: int) -> Fields:
    """Return the fields of a frame that is sent now."""
    now_ns = time_ns()
    return (
        symbol.name,
        symbol.lower,
        b"%d" % number,
        b"%d" % now_ns,
        b"%d" % (now_ns // 1_000_000),
    )
