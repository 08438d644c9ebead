"""What `throughput` and `baseline` share: kinds of frames, and a load server that never waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness.processes import Child, LoadServer, Window, ingest

CONNECTIONS: Final = 10
BUDGET_MIB: Final = 64


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of frame, in Binance's form. symbols: spread over 10 connections. rows: in each."""

    name: str
    kind: str
    channel: str
    symbols: int
    levels: int = 20
    depth: int = 50

    def server(self, certificate: Path | None = None) -> LoadServer:
        """certificate: serve TLS with it."""
        return LoadServer(
            self.symbols,
            dialect="binance",
            levels=self.levels,
            depth=self.depth,
            certificate=certificate,
        )

    def ingestor(
        self,
        server: LoadServer,
        bootstrap: str,
        encoding: str,
        share: tuple[int, int] = (0, 1),
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        return ingest(
            server,
            bootstrap,
            channels=[self.channel],
            encoding=encoding,
            streams_per_connection=self.symbols // CONNECTIONS,
            budget_mib=BUDGET_MIB,
            share=share,
            environment=environment,
        )

    def naive(self, server: LoadServer, bootstrap: str) -> Child:
        streams = [server.stream(self.kind, number) for number in range(self.symbols)]
        connections = [streams[place::CONNECTIONS] for place in range(CONNECTIONS)]
        given = {"url": server.url, "bootstrap": bootstrap, "connections": connections}
        return Child("benchmarks.peers.naive", given)


TRADES: Final = Load("binance trade", "trade", "trades", 200)
QUOTES: Final = Load("binance bookTicker", "quote", "quotes", 200)
BOOK_20: Final = Load("binance depth, 20 levels", "book", "book", 20)
BOOK_200: Final = Load("binance depth, 200 levels", "book", "book", 20, levels=200, depth=300)


def delivered(window: Window) -> float:
    """Return the frames of a window whose rows reached the broker.

    While books synchronise, and as the queue fills, fewer rows are acked than read.
    """
    return window["frames"] * min(window["acked"] / max(window["rows"], 1), 1.0)
