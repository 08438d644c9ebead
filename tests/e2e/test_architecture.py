"""The stations that docs/architecture.md lists are the modules that a frame passes, in that order.

One frame is followed through the whole program: a profile function sees every call, and a context
variable tells which calls the frame caused. The loop copies the variable to each timer, callback
and task that the frame leads to, so whatever the program does by the clock stays out.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import pytest

from ingestor.native import native
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.market import NUMBER_FIRST
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import TOPICS, Running, make_config, running

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
STATION = re.compile(r"^\| `((?:ingestor|feeds)/[\w/]+\.py)` \|", re.MULTILINE)
FOLDERS = (f"{ROOT}/ingestor/", f"{ROOT}/feeds/")
ENTRANCE = "ingestor/sources/websocket/poller.py"  # the loop calls it when a socket is readable
# Counters are summed up a few times a second: it depends on the clock whether a frame meets that.
BY_THE_CLOCK = {"ingestor/telemetry/histogram.py"}
QUIET = SimulatorOptions(symbols=1, rate_per_s=1e-9, tick_s=0.05, heartbeat_s=3_600.0)


def stations(heading: str) -> list[str]:
    """Return the first column of the table below a heading of the document."""
    _, found, after = DOCUMENT.read_text().partition(f"\n## {heading}\n")
    assert found, f"{DOCUMENT} has no heading {heading!r}"
    return STATION.findall(after.partition("\n## ")[0])


class Way:
    """The modules that one frame entered, in the order in which it first did."""

    _is_of_the_frame: ContextVar[Way | None] = ContextVar("_is_of_the_frame", default=None)

    def __init__(self) -> None:
        self.modules: list[str] = []

    def observe(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a module (a function for `sys.setprofile`)."""
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(FOLDERS):
            return
        module = str(Path(file).relative_to(ROOT))
        if module == ENTRANCE:
            self._is_of_the_frame.set(self)
        if self._is_of_the_frame.get() is self and module not in {*self.modules, *BY_THE_CLOCK}:
            self.modules.append(module)


@contextmanager
def following() -> Iterator[Way]:
    """Follow the frame that arrives meanwhile."""
    way = Way()
    sys.setprofile(way.observe)
    try:
        yield way
    finally:
        sys.setprofile(None)


class Quiet:
    """A venue that sends what it is told to, and an ingestor that publishes it."""

    def __init__(self, venue: Simulator, run: Running) -> None:
        self._venue = venue
        self._run = run
        self._number = NUMBER_FIRST
        [self._symbol] = venue.symbols

    async def send(self, kind: str) -> None:
        """Send one frame and wait until its row is acknowledged. kind: `trade` or `book`."""
        self._number += 1
        head = f'{{"ch":"{kind}","s":"{self._symbol}","t":{time.time_ns()},'
        number = self._number
        rest = {
            "trade": f'"i":{number},"p":"100.01","q":"0.5","m":"buy"}}',
            "book": f'"U":{number},"u":{number},"b":[["90.00","3"]],"a":[]}}',
        }[kind]
        before = self._run.status.acked
        self._venue.say((head + rest).encode())
        await self._run.until(lambda: self._run.status.acked > before)


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Quiet]:
    """All is connected, and the book's snapshot is published."""
    with DevBroker() as broker:
        async with Simulator(QUIET) as venue:
            address, rest = venue.addresses[0], venue.rest
            feed = {"venue": "simulated", "symbols": ["*"], "url": address, "rest_url": rest}
            config = make_config(broker.bootstrap_servers, [feed], tmp_path / "cache")
            for topic in TOPICS.values():
                broker.create_topic(config.kafka.topic_prefix + topic, config.kafka.partitions)
            async with running(config) as run:
                await run.subscribed()
                await run.until(lambda: run.status.acked > 0)
                yield Quiet(venue, run)


@pytest.mark.skipif(native().library is None, reason=native().reason)
@pytest.mark.parametrize(
    ("kind", "heading"), [("trade", "The life of a trade"), ("book", "The life of a book delta")]
)
async def test_a_frame_passes_the_stations_of_the_document(
    quiet: Quiet, kind: str, heading: str
) -> None:
    await quiet.send(kind)  # the first one has the sender connect, and tables made
    with following() as way:
        await quiet.send(kind)
    assert way.modules == stations(heading)


def test_the_document_has_every_package_and_every_module_it_names() -> None:
    text = DOCUMENT.read_text()
    named = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    packages = [folder.parent.name for folder in ROOT.glob("ingestor/*/__init__.py")]
    assert sorted(named) == sorted(packages)
    paths = re.findall(r"`((?:ingestor|feeds|tests)/[\w/.]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
