"""A venue makes its ticks finer while we run: nothing is rounded, the new metadata are taken."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from ingestor.model.row_classes import RowClass
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import make_config, running
from tests.e2e.test_digest import Seen, decisions, replayed


async def listed_by(simulator: Simulator) -> bytes:
    async with ClientSession() as http, http.get(f"{simulator.rest}/instruments") as answer:
        return await answer.read()


def coarse(listed: bytes) -> bytes:
    """The venue's own list, with ticks that its prices don't fit."""
    text = orjson.loads(listed)
    for one in text["instruments"]:
        one["tick_size"] = "1"
    return orjson.dumps(text)


@pytest.mark.rows("I2")
async def test_a_finer_tick_is_taken_while_running(tmp_path: Path) -> None:
    """The replay of the run's recording takes them at the same place."""
    live = Seen()
    async with Simulator(SimulatorOptions(symbols=2, rate_per_s=50.0)) as simulator:
        current = await listed_by(simulator)
        answers, asked = [coarse(current)], list[str]()

        async def instruments(request: web.Request) -> web.Response:
            asked.append(request.path)
            return web.Response(body=answers.pop() if answers else current)

        application = web.Application()
        application.router.add_get("/instruments", instruments)
        async with TestServer(application) as rest:
            feed = {
                "venue": "simulated",
                "symbols": ["*"],
                "url": simulator.addresses[0],
                "rest_url": str(rest.make_url("/")).rstrip("/"),
            }
            with DevBroker() as broker:
                recorder = {"path": tmp_path / "recording"}
                config = make_config(broker.bootstrap_servers, [feed], tmp_path, recorder=recorder)
                async with running(config) as one:
                    one.ingestor.flusher.observe(live.observe)
                    table = one.ingestor.planned.table
                    assert [instrument.price_exponent for instrument in table] == [0, 0]
                    await one.until(lambda: len(table) == 4)  # both have a second revision
                    books = one.ingestor.pipeline.books
                    await one.until(lambda: all(books.is_valid(number) for number in (2, 3)))
                    seen = one.ingestor.pipeline.metrics.last_seen
                    await one.until(lambda: seen.of(RowClass.TRADE, 2)[0] > 20)
                    drained = await one.stop()
    assert [table[number].revision for number in (2, 3)] == [2, 2]
    assert drained.status.rejected > 1
    assert len(asked) == 2, "at the start, and once for all frames that were refused"
    assert drained.status.unaccounted == 0
    assert drained.lost == 0

    again = Seen()
    replay = replayed(tmp_path / "recording", again)
    assert decisions(tmp_path / "recording")["revise"] == 1
    assert [one.to_json() for one in replay.table] == [one.to_json() for one in table]
    assert again.digest.by_stream() == live.digest.by_stream()
    assert replay.pipeline.ledger().unaccounted == 0
