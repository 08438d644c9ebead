"""What users get wrong: one line that says what to change, the documented status, no traceback."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest

from ingestor.config.model import Config
from ingestor.model.row_classes import STANDARD_CLASSES
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.conftest import Call
from tests.e2e.harness import TOPICS, published, side_records, until
from tests.e2e.processes import command, environment
from tests.kafka.broker import free_ports

FEED = '[[feeds]]\nvenue = "simulated"\nsymbols = ["*"]\n'
# what the file holds: what the line says, besides the file's name
FILES = {
    FEED.replace("simulated", "simulatd"): "feeds[0].venue: unknown venue 'simulatd'; did you mean"
    " simulated?",
    "[batch]\nlinger = 5\n" + FEED: "batch.linger: unknown key; did you mean linger_ms?",
    FEED + 'channels = ["trade"]\n': "feeds[0].channels[0]: unknown value 'trade'; did you",
    "[kafka\n": "is no TOML: ",
    "": "names no feeds; add a [[feeds]] section",
}


@pytest.mark.parametrize("text", FILES, ids=lambda text: FILES[text][:30])
def test_a_bad_file_is_one_line(call: Call, tmp_path: Path, text: str) -> None:
    path = tmp_path / "ingestor.toml"
    path.write_text(text)
    done = call("run", str(path), env=environment(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ingestor: {path}: ")
    assert FILES[text] in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_cannot_be_read_is_one_line(call: Call, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    done = call("run", str(path), env=environment(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ingestor: {path}: can't be read: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("INGESTOR__KAFKA__ENCODING", "xml", "unknown value 'xml'; known are binary, json"),
        ("INGESTOR__KAFKA__BOOTSTRAP_SERVERS", "broker", "must be host:port"),
        ("INGESTOR__KAFKA__ENCODNG", "json", "did you mean"),
    ],
)
def test_a_bad_override_is_one_line(
    call: Call, tmp_path: Path, name: str, value: str, text: str
) -> None:
    path = tmp_path / "ingestor.toml"
    path.write_text(FEED)
    done = call("run", str(path), env=environment(tmp_path, **{name: value}))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ingestor: ")
    assert name in done.stderr
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.rows("I4")
async def test_a_symbol_that_the_venue_refuses_costs_no_neighbour(tmp_path: Path) -> None:
    """It is in the venue's list, and refused when subscribed to: said, counted, left out."""
    port = free_ports(1)[0]
    options = SimulatorOptions(symbols=3, rate_per_s=50.0)
    topics = {f"md.{topic}": 2 for topic in TOPICS.values()}
    with DevBroker(topics) as broker:
        async with Simulator(options) as venue:
            good, bad, other = venue.symbols
            venue.faults.bad_symbols = {bad}
            path = tmp_path / "ingestor.toml"
            address = f'url = "{venue.addresses[0]}"\nrest_url = "{venue.rest}"\n'
            path.write_text(FEED + address)
            env = environment(
                tmp_path,
                INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers,
                INGESTOR__HTTP__PORT=str(port),
            )
            with command("run", str(path), "--json", env=env) as running:
                await until(lambda: venue.statistics.frames > 1_000)
                page = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
                running.terminate()
                ended = await asyncio.to_thread(running.end)
        config = Config.model_validate({"kafka": {"bootstrap_servers": broker.bootstrap_servers}})
        found = await published(config)
        status = [json.loads(value) for _, value in await side_records(config, "status.v1")]
    assert (ended.status, ended.result["unaccounted"]) == (0, 0), ended.err
    for row_class in STANDARD_CLASSES:
        assert sorted(found.keys(row_class)) == [f"simulated:spot:{one}" for one in (good, other)]
    refused = [name for one in status if one["event"] == "refused" for name in one["streams"]]
    assert len(refused) == len(set(refused)) == 3
    assert all(bad in name for name in refused)
    assert 'ingestor_streams_refused_total{venue="simulated"} 3.0' in page
    assert "streams.refused" in ended.err
    assert "Traceback" not in ended.err


def test_check_shows_the_plan_and_feeds_lists_the_venues(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "ingestor.toml"
    symbols = ["S00000-USD", "S00001-USD", "S00002-USD"]
    path.write_text(FEED.replace('["*"]', json.dumps(symbols)) + "streams_per_connection = 4\n")
    checked = call("check", str(path), "--json", env=environment(tmp_path))
    assert checked.returncode == 0, checked.stderr
    connections = json.loads(checked.stdout)["connections"]
    assert [len(one["streams"]) for one in connections] == [3, 3, 3]
    planned = {(it["symbol"], it["channel"]) for one in connections for it in one["subscriptions"]}
    standard = [row_class.channel for row_class in STANDARD_CLASSES]
    assert planned == {(one, channel) for one in symbols for channel in standard}
    listed = call("feeds", "--json", env=environment(tmp_path))
    assert (listed.returncode, listed.stderr) == (0, "")
    markets = {(one["venue"], one["market"]) for one in json.loads(listed.stdout)}
    assert {
        *(("binance", market) for market in ("spot", "usdm", "coinm")),
        *(("bybit", market) for market in ("spot", "linear", "inverse")),
        *(("okx", market) for market in ("spot", "swap", "futures")),
        *(("coinbase", "spot"), ("kraken", "spot"), ("simulated", "spot")),
    } <= markets


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()
