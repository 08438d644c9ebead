"""Faults on demand: predictable, counted exactly, and what a client sees of each."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from ingestor.testbed.emulator.faults import Fault, Faults, malformed
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.testbed.made import BYBIT, COINBASE, Peer, peer, subscribed, write

COUNT = 200
TOPIC = "publicTrade.BTCUSDT"
SUBSCRIBE = '{"op":"subscribe","args":["publicTrade.BTCUSDT"]}'


def _frame(number: int) -> str:
    return f'{{"topic":"{TOPIC}","type":"snapshot","ts":{number},"data":[]}}'


FRAMES = [_frame(number) for number in range(COUNT)]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    lines: list[dict[str, Any]] = [{"t": "header", "venue": "BYBIT", "channels": {}}]
    for number, frame in enumerate(FRAMES):
        lines.append({"t": "recv", "ts_ns": number, "conn": "c", "data": frame})
    return write(tmp_path / "many.jsonl.zst", lines)


async def _hear(path: Path, faults: Faults) -> tuple[list[str], VenueEmulator, Peer]:
    """Play the recording at max to one client; return what it heard."""
    async with VenueEmulator([path], speed=MAX_SPEED, start_when=1, faults=faults) as emulator:
        async with peer(emulator.ws_url) as one:
            await one.socket.send(SUBSCRIBE)
            await asyncio.wait_for(emulator.finished.wait(), 20)
            if not emulator.statistics.faults[Fault.DISCONNECT]:
                await one.socket.send('{"op":"ping"}')
                while "pong" not in one.heard[-1]:  # it comes after everything
                    await one.until(len(one.heard) + 1)
                one.heard.pop()
        return one.heard[1:], emulator, one


def _predicted(faults: Faults) -> dict[int, Fault]:
    record_decision = {number: faults.decide(number, [TOPIC]) for number in range(COUNT)}
    return {number: fault for number, fault in record_decision.items() if fault is not None}


async def test_drop(recording: Path) -> None:
    faults = Faults(seed=7, drop=0.2)
    heard, emulator, _ = await _hear(recording, faults)
    hit = _predicted(faults)
    assert 20 < len(hit) < 60
    assert heard == [frame for number, frame in enumerate(FRAMES) if number not in hit]
    assert emulator.statistics.faults == {Fault.DROP: len(hit)}


async def test_duplicate(recording: Path) -> None:
    faults = Faults(seed=8, duplicate=0.2)
    heard, emulator, _ = await _hear(recording, faults)
    hit = _predicted(faults)
    expected = [frame for n, frame in enumerate(FRAMES) for _ in range(2 if n in hit else 1)]
    assert heard == expected
    assert emulator.statistics.faults[Fault.DUPLICATE] == len(heard) - COUNT == len(hit) > 0


async def test_reorder(recording: Path) -> None:
    faults = Faults(at={3: Fault.REORDER, 10: Fault.REORDER, COUNT - 1: Fault.REORDER})
    heard, emulator, _ = await _hear(recording, faults)
    expected = list(FRAMES)
    for number in (3, 10):  # the last has no successor: it is sent at the end
        expected[number], expected[number + 1] = expected[number + 1], expected[number]
    assert heard == expected
    assert emulator.statistics.faults == {Fault.REORDER: 3}


async def test_malformed(recording: Path) -> None:
    faults = Faults(seed=9, malformed=0.1)
    heard, emulator, _ = await _hear(recording, faults)
    hit = _predicted(faults)
    broken = []
    for number, text in enumerate(heard):
        try:
            assert json.loads(text) == json.loads(FRAMES[number])
        except json.JSONDecodeError:
            broken.append(number)
    assert broken == list(hit)
    assert emulator.statistics.faults == {Fault.MALFORMED: len(hit)}


@pytest.mark.parametrize("fault", [Fault.DELAY, Fault.STALL])
async def test_late_but_complete(recording: Path, fault: Fault) -> None:
    faults = Faults(at={5: fault, 6: fault}, delay_s=0.05, stall_s=0.06)
    started_s = time.monotonic()
    heard, emulator, _ = await _hear(recording, faults)
    assert time.monotonic() - started_s >= 0.1
    assert heard == FRAMES
    assert emulator.statistics.faults == {fault: 2}


async def test_disconnect_without_a_close_frame(recording: Path) -> None:
    faults = Faults(at={50: Fault.DISCONNECT})
    heard, emulator, one = await _hear(recording, faults)
    assert one.socket.close_code == 1006
    assert heard == FRAMES[: len(heard)]
    assert len(heard) <= 50
    assert emulator.statistics.frames_sent.total() == 51
    assert emulator.statistics.faults == {Fault.DISCONNECT: 1}
    assert emulator.statistics.frames_played == COUNT


async def test_every_kind_at_once_is_repeatable(recording: Path) -> None:
    chances = {fault.value: 0.05 for fault in Fault if fault is not Fault.DISCONNECT}
    faults = Faults(seed=3, delay_s=0.001, stall_s=0.001, **chances)  # type: ignore[arg-type]
    first, emulator, _ = await _hear(recording, faults)
    again, _, _ = await _hear(recording, faults)
    assert first == again
    hit = list(_predicted(faults).values())
    assert emulator.statistics.faults == {fault: hit.count(fault) for fault in set(hit)}
    assert set(hit) == set(Fault) - {Fault.DISCONNECT}
    counts = emulator.statistics.faults
    assert len(first) == COUNT + counts[Fault.DUPLICATE] - counts[Fault.DROP]


async def test_one_stream_alone_is_hit(tmp_path: Path) -> None:
    faults = Faults(drop=1.0, streams=frozenset({"orderbook.50.BTCUSDT"}))
    path = BYBIT.write(tmp_path)
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when="manual", faults=faults) as emulator,
        peer(emulator.ws_url) as one,
    ):
        answers = await subscribed(emulator, BYBIT, one)
        emulator.start()
        heard = (await one.until(answers + 1))[answers:]
        await emulator.finished.wait()
    assert heard == [text for text in BYBIT.data if "publicTrade" in text]
    assert emulator.statistics.faults == {Fault.DROP: 3}


async def test_a_dropped_frame_leaves_a_hole_in_coinbase_numbers(tmp_path: Path) -> None:
    path = COINBASE.write(tmp_path)
    faults = Faults(at={1: Fault.DROP})
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when="manual", faults=faults) as emulator,
        peer(emulator.ws_url) as one,
    ):
        answers = await subscribed(emulator, COINBASE, one)
        emulator.start()
        heard = await one.until(answers + len(COINBASE.data) - 1)
    assert [json.loads(text)["sequence_num"] for text in heard] == [0, 1, 2, 4, 5, 6, 7]


def test_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        Faults(drop=0.6, malformed=0.6)
    with pytest.raises(ValueError, match="not negative"):
        Faults(drop=-0.1)


def test_half_a_frame_is_still_text() -> None:
    payload = '{"price":"€€€€€"}'.encode()
    assert payload.decode().startswith(malformed(payload).decode())
    with pytest.raises(json.JSONDecodeError):
        json.loads(malformed(payload))
