"""Two short ways back against the data's: a pause of reading, and the repair of a book.

docs/architecture.md lists the calls of each. A profile function sees the last call of a way and
reads the stack there, so that no call can be forgotten.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from ingestor.model.rows import Cause
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import Running, make_config, running

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
CALL = re.compile(r"^\| `(\w+\.\w+)` \|", re.MULTILINE)
OURS = f"{ROOT}/ingestor/"


def documented(heading: str) -> list[str]:
    """Return the first column of the table below a heading of the document."""
    _, found, after = DOCUMENT.read_text().partition(f"\n## {heading}\n")
    assert found, f"{DOCUMENT} has no heading {heading!r}"
    return CALL.findall(after.partition("\n## ")[0])


@contextmanager
def stacks_at(*lasts: str) -> Iterator[list[list[str]]]:
    """Collect the stack of our calls at each call of these functions, the outermost first."""
    found: list[list[str]] = []

    def observe(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_qualname in lasts:
            calls: list[str] = []
            at: FrameType | None = frame
            while at is not None:
                if at.f_code.co_filename.startswith(OURS):
                    calls.insert(0, at.f_code.co_qualname)
                at = at.f_back
            found.append(calls)

    sys.setprofile(observe)
    try:
        yield found
    finally:
        sys.setprofile(None)


def below(caller: str, stacks: list[list[str]]) -> list[list[str]]:
    """Return what a caller called, of the stacks that it is part of."""
    return [stack[stack.index(caller) + 1 :] for stack in stacks if caller in stack]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Running]:
    """A venue of one symbol whose book is valid."""
    options = SimulatorOptions(symbols=1, rate_per_s=50.0)
    with DevBroker() as broker:
        async with Simulator(options) as venue:
            feed = {
                "venue": "simulated",
                "symbols": ["*"],
                "url": venue.addresses[0],
                "rest_url": venue.rest,
            }
            config = make_config(broker.bootstrap_servers, [feed], tmp_path / "cache")
            async with running(config) as run:
                await run.subscribed()
                await run.until(lambda: run.ingestor.pipeline.books.is_valid(0))
                yield run


async def test_a_pause_takes_at_most_five_calls_from_the_queue_to_epoll(run: Running) -> None:
    sink, way = run.ingestor.sink, documented("The way of a pause")
    assert sink is not None
    unsent = 16 << 20  # more than the throttle lets wait, less than the overload policy does
    with stacks_at(way[-1]) as stacks:
        sink.queue.bytes += unsent
        try:
            sink.queue.check(time.monotonic_ns())
        finally:
            sink.queue.bytes -= unsent
    assert run.ingestor.supervisor.is_paused
    assert below("PublishQueue._read", stacks) == [way]
    assert len(way) <= 5


async def test_a_repair_takes_at_most_six_calls_from_the_flush_to_the_socket(run: Running) -> None:
    ingestor, way = run.ingestor, documented("The way of a repair")
    with stacks_at(way[0], way[-1]) as stacks:
        ingestor.pipeline.books.invalidate(0, Cause.CHECKSUM, time.time_ns())
        await run.until(lambda: ingestor.supervisor.statistics().repairs["resubscribed"] > 0)
    asked = below("Flusher._flush", stacks)
    assert asked[0] == way[:1]
    sent = [stack for stack in stacks if stack[0] == "RepairWorker._repair"]
    assert sent
    assert all(stack == way[1:] for stack in sent)
    assert len(way) <= 6
