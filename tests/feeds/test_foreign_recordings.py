"""What a fixture holds, recorded by others: no header, no list of instruments, no requests."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingestor.adapter import FeedAdapter, TellsMarkets
from ingestor.adapter.addresses import markets_at
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from tests.feeds.fixtures import load, markets

TS_NS = 1_800_000_000_000_000_000
# A book's events become levels, where its image came on the socket; a venue's status is of all
# instruments, of which a recording shows some.
KINDS = {one.kind_name for one in ROW_CLASSES} - {"level", "quote", "instrument_status"}


def recorded(adapter: type[FeedAdapter], market: str, path: Path) -> Counter[str]:
    """Write the accepted frames of a fixture; return its rows by kind."""
    fixture = load(adapter, market)
    url = adapter.markets[market].endpoints[0].url
    lines: list[dict[str, Any]] = [{"t": "connect", "ts_ns": TS_NS, "conn": "c", "url": url}]
    rows = Counter[str]()
    for step in fixture.steps:
        if step.verb == "connect":
            lines.append(lines[0] | {"ts_ns": TS_NS + len(lines)})
        if step.verb == "frame" and step.outcome != "rejected":
            try:
                text = {"data": step.payload.decode()}
            except UnicodeDecodeError:
                text = {"b64": base64.b64encode(step.payload).decode()}
            lines.append({"t": "recv", "ts_ns": TS_NS + len(lines), "conn": "c", **text})
            if step.outcome == "expect":
                rows.update(row["kind"] for row in step.wanted)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows


VENUES = [pair for pair in markets() if pair[0].venue != "simulated"]  # which has no address


@pytest.mark.parametrize(("adapter", "market"), VENUES)
def test_a_recording_without_a_header_is_read(
    adapter: type[FeedAdapter], market: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    wanted = recorded(adapter, market, path)
    shared = len(markets_at(adapter, adapter.markets[market].endpoints[0].url)) > 1
    is_told = not shared or issubclass(adapter, TellsMarkets)
    found = audit(Replay(ReplayOptions((path,), market="" if is_told else market)))
    assert (found["rejected"], found["unaccounted"], found["problems"]) == (0, 0, 0)
    told = found["rows"]
    for kind in KINDS & wanted.keys():
        repeated = found["duplicate_rows"]
        assert told[kind] + repeated >= wanted[kind], f"{wanted[kind]} of {kind} were recorded"
    assert bool(told["quote"]) >= bool(wanted["quote"])
    if wanted["update"]:  # an image over REST is missing: its updates wait, and are counted
        assert told["level"] or found["held_rows"], "the book is neither there nor told of"
