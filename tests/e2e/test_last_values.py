"""Last values of a running process: on their topic, on the status port, and in a real Redis."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ingestor.kafka.settings import LAST
from tests.e2e.harness import make_config, running, side_records
from tests.e2e.processes import simulated_venue
from tests.fakes.schemas import check
from tests.kafka.broker import KafkaEndpoint
from tests.unit.sinks.redis.test_writer import Server, hashes

SYMBOLS = 3
KEY = "simulated:spot:S00001-USD"


async def test_last_values_of_a_run(kafka: KafkaEndpoint, tmp_path: Path) -> None:
    redis = Server(tmp_path)
    redis.start()
    with simulated_venue(symbols=SYMBOLS, rate_per_s=50) as venue:
        config = make_config(
            kafka.bootstrap_servers,
            [venue.feed | {"channels": ["trades", "quotes"]}],
            tmp_path,
            last={"enabled": True, "interval_s": 0.5, "redis_url": redis.url},
            http={"enabled": True, "port": 0},
        )
        async with running(config) as run:
            await run.subscribed()
            last = run.ingestor.last
            assert last is not None
            await run.until(lambda: last.counts()["redis", "written"] >= 3 * SYMBOLS)
            assert run.ingestor.http is not None
            url = f"http://127.0.0.1:{run.ingestor.http.port}"
            found = await asyncio.to_thread(get, f"{url}/last/{KEY}")
            with pytest.raises(urllib.error.HTTPError, match="404"):
                await asyncio.to_thread(get, f"{url}/last/simulated:spot:NONE")
            stored = await hashes(redis)
            redis.stop()  # nothing of what follows needs it
            await run.until(lambda: last.counts()["redis", "failed"] > 0)
            drained = await run.stop()
    assert drained.status.unaccounted == 0
    assert found["key"] == KEY
    assert time.time_ns() - found["trade"]["ts_recv"] < 60 * 10**9
    assert float(found["quote"]["bid_price"]) < float(found["quote"]["ask_price"])
    assert stored.keys() == {f"md:last:simulated:spot:S0000{n}-USD" for n in range(SYMBOLS)}
    assert float(stored[f"md:last:{KEY}"]["quote_bid_price"]) > 0
    records = check(LAST, [value for _, value in await side_records(config, LAST)])
    assert {record["key"] for record in records} == {
        f"simulated:spot:S0000{n}-USD" for n in range(SYMBOLS)
    }
    own = [record["ts"] for record in records if record["key"] == KEY]
    assert min(after - before for before, after in pairwise(own)) > 4 * 10**8


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
