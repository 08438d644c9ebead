"""Compressed frames: recorded, served, and replayed as they came."""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from feeds.htx import Htx
from ingestor.model.rows import Kind
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.feeds.fixtures import load
from tests.testbed.made import START_NS, write

TRADE = (
    '{"ch":"market.BTC-USDT.trade.detail","ts":1767225600123,"tick":{"id":1,"ts":1767225600123,'
    '"data":[{"amount":2,"ts":1767225600123,"id":%d,"price":91234.5,"direction":"buy"}]}}'
)
PACKED = [gzip.compress((TRADE % number).encode(), mtime=0) for number in range(1, 4)]
STREAM = "market.BTC-USDT.trade.detail"


def recording(folder: Path, frames: list[bytes | str]) -> Path:
    """Write what our recorder does of a connection of one stream."""
    instruments = [one.to_json() for one in load(Htx, "linear").instruments]
    connection: dict[str, Any] = {
        "t": "connect", "ts_ns": START_NS, "conn": 1, "url": "wss://api.hbdm.com/linear-swap-ws",
        "venue": "htx", "market": "linear", "instruments": instruments,
        "subscriptions": [["BTC-USDT", "trades", STREAM]],
    }  # fmt: skip
    head = {"t": "header", "venue": "htx", "format": 1, "session": "s", "ts_ns": START_NS}
    lines: list[dict[str, Any]] = [head, connection]
    for frame in frames:
        line: dict[str, Any] = {"t": "recv", "ts_ns": START_NS, "conn": 1}
        if isinstance(frame, str):
            lines.append(line | {"data": frame})
        else:
            lines.append(line | {"b64": b64encode(frame).decode()})
    numbered = [line | {"n": number} for number, line in enumerate(lines)]
    return write(folder / "own.jsonl.zst", numbered)


def trades(path: Path) -> list[list[Any]]:
    """Replay a recording; return its trades."""
    replay = Replay(ReplayOptions((path,)))
    return [
        row
        for result in replay.results()
        for batch in result.batches
        if batch.row_class.channel == "trades"
        for row in batch.rows[batch.rows["kind"] == Kind.TRADE].tolist()
    ]


async def test_binary_frames_are_served_as_binary_and_text_as_text(tmp_path: Path) -> None:
    text = '{"id":"1","status":"ok","subbed":"market.BTC-USDT.trade.detail","ts":1}'
    path = recording(tmp_path, [text, *PACKED])
    async with (
        VenueEmulator([path], speed=MAX_SPEED) as emulator,
        connect(emulator.ws_url + "/linear-swap-ws") as client,
        asyncio.timeout(30),
    ):
        received = [await client.recv() for _ in range(4)]
    assert received == [text, *PACKED]


def test_a_recording_of_compressed_frames_has_the_rows_of_their_text(tmp_path: Path) -> None:
    packed, opened = tmp_path / "packed", tmp_path / "opened"
    packed.mkdir()
    opened.mkdir()
    found = trades(recording(packed, list(PACKED)))
    texts: list[bytes | str] = [TRADE % number for number in range(1, 4)]
    assert found == trades(recording(opened, texts))
    assert len(found) == 3
