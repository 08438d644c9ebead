"""Frames that nobody can read: kept with the reason, counted, and paid for by a declared hole."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ingestor.consumer.orderbook import OrderBook
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import (
    TOPICS,
    Published,
    Running,
    make_config,
    published,
    running,
    side_records,
)

ROUNDS, SPOILT = 5, 4  # frames that are cut off, at once
MALFORMED = b'{"ch"'  # what the simulated venue makes of them


@pytest.mark.rows("I5", "D5")
async def test_malformed_frames_among_good_ones(tmp_path: Path) -> None:
    prefix = "quarantine."
    with DevBroker({f"{prefix}{topic}": 3 for topic in TOPICS.values()}) as broker:
        async with Simulator(SimulatorOptions(symbols=4, rate_per_s=100.0)) as venue:
            ticking, booked = venue.symbols[:2], venue.symbols[2:]
            feed = {"venue": "simulated", "url": venue.addresses[0], "rest_url": venue.rest}
            config = make_config(
                broker.bootstrap_servers,
                [
                    # Without a book, quotes are numbered one by one, as trades are.
                    feed | {"symbols": ticking, "channels": ["trades", "quotes"]},
                    feed | {"symbols": booked, "channels": ["book"]},
                ],
                tmp_path,
                kafka={"topic_prefix": prefix},
            )
            async with running(config) as run:
                await run.subscribed()
                await run.until(lambda: run.status.frames > 300)  # every stream has begun
                for number in range(ROUNDS):
                    venue.faults.malformed = SPOILT
                    wanted = (number + 1) * SPOILT
                    await run.until(partial(rejected, run, wanted))
                    await run.until(lambda: books_are_valid(run))
                await check_pages(run)
                frames = run.status.frames  # and every stream goes on after the last fault
                await run.until(lambda: run.status.frames > frames + 300)
                # A refused frame is counted before the books hear of it: look once more.
                await run.until(lambda: books_are_valid(run))
                drained = await run.stop()
                connections = {
                    line.planned.subscriptions[0].channel: line.planned.number
                    for line in run.ingestor.supervisor.slots
                }
        found = await published(config)
        records = [json.loads(value) for _, value in await side_records(config, "quarantine.v1")]
        events = [json.loads(value) for _, value in await side_records(config, "status.v1")]
    status = drained.status
    assert (status.rejected, status.unaccounted, status.reconnects) == (ROUNDS * SPOILT, 0, 0)
    assert (status.acked, 0) == (found.total, found.holes)
    for record in records:
        assert base64.b64decode(record["raw"]) == MALFORMED
        assert (record["venue"], record["market"], record["reason"]) == (
            *("simulated", "spot"),
            "malformed",
        )
        assert record["detail"]
    planned_of = {one["connection"]: one["planned"] for one in events if one["event"] == "feed_up"}
    spoilt = Counter(planned_of[record["connection"]] for record in records)
    assert spoilt.total() == ROUNDS * SPOILT
    check_ticks(found, ticking, spoilt[connections["trades"]])
    check_books(found, booked, spoilt[connections["book"]])


def rejected(run: Running, frames: int) -> bool:
    return run.status.rejected == frames


def books_are_valid(run: Running) -> bool:
    [books] = run.ingestor.pipeline.books.statistics().values()
    return books.valid == books.books == 2


def check_ticks(found: Published, symbols: list[str], spoilt: int) -> None:
    """No row is missing but those of the spoilt frames, and each hole has its mark."""
    missing = 0
    for row_class in (RowClass.TRADE, RowClass.QUOTE):
        for symbol in symbols:
            rows = found.rows(row_class, f"simulated:spot:{symbol}")
            ticks = np.flatnonzero(rows["kind"] == row_class.id)
            for before, after in pairwise(ticks.tolist()):
                absent = int(rows["sequence"][after]) - int(rows["sequence"][before]) - 1
                missing += absent
                if absent:
                    between = rows[before + 1 : after]
                    assert (between["kind"] == Kind.GAP).all()
                    assert Cause.REJECTED in between["side"]
    assert missing == spoilt


def check_books(found: Published, symbols: list[str], spoilt: int) -> None:
    """Who may have been hit is declared broken, and begun anew."""
    for symbol in symbols:
        key = f"simulated:spot:{symbol}"
        rows = found.rows(RowClass.LEVEL, key)
        gaps = np.flatnonzero((rows["kind"] == Kind.GAP) & (rows["side"] == Cause.REJECTED))
        resets = np.flatnonzero(rows["kind"] == Kind.RESET)
        assert bool(len(gaps)) == bool(spoilt)
        assert len(resets) > (1 if spoilt else 0)
        assert not spoilt or resets[-1] > gaps[-1]
        book = OrderBook(key, 0, 0)
        book.feed(rows)
        assert book.is_valid


async def check_pages(run: Running) -> None:
    """What an operator and a scheduler look at while it runs."""
    assert run.ingestor.http is not None
    origin = f"http://127.0.0.1:{run.ingestor.http.port}"
    for page in ("livez", "readyz", "startupz"):
        assert (await get(f"{origin}/{page}"))[0] == 200
    status, text = await get(f"{origin}/metrics")
    assert status == 200
    labels = 'market="spot",reason="malformed",venue="simulated"'
    assert f"ingestor_messages_rejected_total{{{labels}}} {ROUNDS * SPOILT}.0" in text
    assert "ingestor_ledger_unaccounted 0.0" in text
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = await asyncio.to_thread(
            subprocess.run,
            [promtool, "check", "metrics"],
            input=text,
            text=True,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def get(url: str) -> tuple[int, str]:
    def read() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    return await asyncio.to_thread(read)
