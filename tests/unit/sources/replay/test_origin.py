"""Whose traffic a recording of others holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingestor.recording.reader import Problems, find_chains
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.origin import venue_of


@pytest.mark.parametrize(
    ("header", "url", "venue"),
    [
        ("BINANCE", "wss://stream.binance.com:9443/stream?streams=x@trade", "binance"),
        ("BINANCE_US", "wss://stream.binance.us:9443/ws", "binanceus"),
        ("KRAKEN_FUTURES", "wss://futures.kraken.com/ws/v1", "krakenfutures"),
        ("HTX_SWAP", "wss://api.hbdm.com/linear-swap-ws", "htx"),
        ("CRYPTO.COM", "wss://stream.crypto.com/exchange/v1/market", "cryptocom"),
        ("", "wss://ws.bitmex.com/realtime", "bitmex"),
        ("", "wss://data-stream.binance.vision/ws", "binance"),
        ("BINANCE", "ws://127.0.0.1:8765/stream", "binance"),
        ("BINANCE", "wss://proxy.example/stream", "binance"),
        ("NOBODY", "wss://proxy.example/stream", "nobody"),
        ("OKX", "", "okx"),
    ],
)
def test_addresses_go_before_the_header(header: str, url: str, venue: str, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    lines: list[dict[str, object]] = [{"t": "header", "venue": header}] if header else []
    if url:
        lines.append({"t": "connect", "ts_ns": 1_800_000_000_000_000_000, "conn": "c", "url": url})
    frame = {"t": "recv", "ts_ns": 1_800_000_000_000_000_001, "conn": "c", "data": "{}"}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, frame]))
    (chain,) = find_chains([path], Problems())
    assert venue_of(chain, adapter_of) == venue
