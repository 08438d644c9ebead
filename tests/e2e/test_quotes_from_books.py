"""Quotes that come from a book, whichever of the two is subscribed to: live, and in its replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind
from ingestor.testbed.emulator.faults import Fault, Faults
from ingestor.testbed.emulator.server import VenueEmulator
from tests.e2e.harness import make_config, running
from tests.e2e.test_digest import Seen, replayed
from tests.testbed.made import START_NS, write

KEY: Final = "coinbase:spot:BTC-USD"
FRAMES: Final = 100
GAP_NS: Final = 10_000_000
LOST: Final = 20  # the frame that is dropped


def top(number: int) -> int:
    """Return the best bid's size after a frame: each changes it."""
    return number % 7 + 1 + number


def frame(number: int) -> str:
    level = {"side": "bid", "event_time": "2026-01-01T00:00:00Z", "price_level": "10.0"}
    updates = [{**level, "new_quantity": str(top(number))}]
    if number == 0:
        updates.append({**level, "side": "offer", "price_level": "11.0", "new_quantity": "1"})
    kind = "update" if number else "snapshot"
    event = {"type": kind, "product_id": "BTC-USD", "updates": updates}
    message: dict[str, Any] = {"channel": "l2_data", "timestamp": "2026-01-01T00:00:00Z"}
    return orjson.dumps(message | {"sequence_num": number, "events": [event]}).decode()


def recording(folder: Path) -> Path:
    lines: list[dict[str, Any]] = [{"t": "header", "venue": "COINBASE", "channels": {}}]
    for number in range(FRAMES):
        ts_ns = START_NS + number * GAP_NS
        lines.append({"t": "recv", "ts_ns": ts_ns, "conn": "c", "data": frame(number)})
    return write(folder / "coinbase.jsonl.zst", lines)


@pytest.mark.parametrize("channels", [["quotes"], ["book"], ["quotes", "book"]], ids="+".join)
async def test_a_hole_marks_and_repairs_what_is_wanted(tmp_path: Path, channels: list[str]) -> None:
    faults = Faults(at={LOST: Fault.DROP})
    live = Seen()
    async with VenueEmulator(
        [recording(tmp_path)], "coinbase", "spot", faults=faults, start_when="first"
    ) as emulator:
        feed = {
            "venue": "coinbase",
            "symbols": ["BTC-USD"],
            "channels": channels,
            "url": emulator.ws_url,
            "rest_url": emulator.rest_url,
        }
        config = make_config(
            "127.0.0.1:9", [feed], tmp_path, books={"repair_backoff_s": 0.1},
            recorder={"path": tmp_path / "recording"},
        )  # fmt: skip
        async with running(config, publish=False) as run:
            run.ingestor.flusher.observe(live.observe)
            books = run.ingestor.pipeline.books
            await run.until(emulator.finished.is_set)

            def repaired() -> bool:
                line = books.statistics().get(("coinbase", "spot"))
                return line is not None and line.resets >= 2 and line.valid == 1

            await run.until(repaired)
            await run.stop()
    check(live, channels)
    again = Seen()
    replay = replayed(tmp_path / "recording", again)
    assert again.digest.by_stream() == live.digest.by_stream()
    assert replay.pipeline.ledger().unaccounted == 0


def check(live: Seen, channels: list[str]) -> None:
    rows = live.rows()
    wanted = {
        (KEY, row_class)
        for row_class, channel in ((RowClass.QUOTE, "quotes"), (RowClass.LEVEL, "book"))
        if channel in channels
    }
    assert rows.keys() == wanted
    for (_, row_class), some in rows.items():
        kinds, causes = some["kind"].tolist(), some["side"].tolist()
        gaps = [cause for kind, cause in zip(kinds, causes, strict=True) if kind == Kind.GAP]
        assert gaps[0] == Cause.SEQUENCE
        at = kinds.index(Kind.GAP)
        field = "bid_size" if row_class is RowClass.QUOTE else "size"
        before = some[:at][some["kind"][:at] == Kind(row_class.id)]
        sizes = [size for size in before[field].tolist() if size != 1]
        assert sizes == [top(number) for number in range(1, LOST)][-len(sizes) :]
        after = some[at + 1]  # nothing of the stale book comes between the GAP and the image
        if row_class is RowClass.LEVEL:
            assert after["kind"] == Kind.RESET
            assert some[at + 2]["flags"] & Flag.SNAPSHOT
        else:
            assert after["kind"] == Kind.QUOTE
            assert after["bid_size"] > top(LOST)
            closing = some[some["kind"] == Kind.QUOTE][-1]
            assert closing["bid_size"] == top(FRAMES - 1)
