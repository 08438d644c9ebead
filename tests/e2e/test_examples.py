"""The examples of docs/examples run against a demo, as their first lines say."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import orjson
import polars as pl
import pytest
from nbclient import NotebookClient

from ingestor.codec import encoder
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.testbed.broker import DevBroker
from tests.e2e.processes import PATIENCE_S, ROOT, command, environment
from tests.e2e.test_documents import images
from tests.fakes.rows import quotes
from tests.unit.consumer.test_consumer import publish

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "docs" / "examples"
QUANT_S = 60.0  # promised, with the start of the demo
SYMBOLS = 4


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running demo's broker, once it has images of books."""
    env = environment(tmp_path_factory.mktemp("demo"))
    with command("demo", "--symbols", str(SYMBOLS), "--json", env=env) as running:
        running.until(lambda: "trades" in running.err)
        found = re.search(r"Kafka   (\S+)", running.err)
        assert found is not None
        running.until(lambda: images(found[1]) >= SYMBOLS)
        yield found[1]


def run(name: str, *arguments: str, folder: Path) -> str:
    """Run an example to its end; return what it printed."""
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment(folder, PYTHONPATH=str(ROOT)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def user_lines(path: Path) -> int:
    """Count the lines of an example that are code."""
    text = path.read_text()
    docs = ast.get_docstring(ast.parse(text), clean=False) or ""
    return sum(bool(line.strip()) for line in text.splitlines()) - len(docs.splitlines())


def test_a_quants_path_from_the_demo_to_a_frame_a_join_and_a_book(tmp_path: Path) -> None:
    """The time is that of a newcomer's machine doing it all, the demo's start included."""
    assert user_lines(EXAMPLES / "quant.py") <= 30
    started_s = time.monotonic()
    with command("demo", "--json", env=environment(tmp_path)) as running:
        running.until(lambda: "trades" in running.err)
        found = re.search(r"Kafka   (\S+)", running.err)
        assert found is not None
        running.until(lambda: images(found[1]) >= 3)
        text = run("quant.py", found[1], folder=tmp_path)
    took_s = time.monotonic() - started_s
    assert took_s < QUANT_S
    assert "datetime[ns, UTC]" in text
    assert "bid_price" in text
    books = re.findall(r"^simulated:spot:S\d+-USD \((\d+), \d+, (\d+), \d+\)", text, re.MULTILINE)
    assert len(books) == 3
    assert all(int(bid) < int(ask) for bid, ask in books)


def test_a_strategy_on_trades_and_quotes(demo: str, tmp_path: Path) -> None:
    last = run("strategy.py", demo, folder=tmp_path).splitlines()[-1]
    found = re.fullmatch(r"\d+ signals of (\d+) trades, 0 rows out of order", last)
    assert found is not None, last
    assert int(found[1]) > 0


def test_candles_to_parquet(demo: str, tmp_path: Path) -> None:
    run("candles.py", f"kafka://{demo}/md.", "candles.parquet", "1s", folder=tmp_path)
    candles = pl.read_parquet(tmp_path / "candles.parquet")
    assert set(candles["symbol"]) == {f"S0000{n}-USD" for n in range(SYMBOLS)}
    assert (candles["low"] <= candles["open"]).all()
    assert (candles["close"] <= candles["high"]).all()
    assert (candles["trades"] > 0).all()
    assert candles["ts_event"].dtype == pl.Datetime("ns", "UTC")


def test_an_as_of_join_in_polars(demo: str, tmp_path: Path) -> None:
    last = run("asof_join.py", f"kafka://{demo}/md.", folder=tmp_path).splitlines()[-1]
    found = re.fullmatch(r"(\d+) of (\d+) trades have a quote before them", last)
    assert found is not None, last
    assert 0.5 * int(found[2]) < int(found[1]) <= int(found[2])


def test_the_research_notebook_runs_in_a_kernel(
    demo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE", f"kafka://{demo}/md.")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / "research.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none is kept in the checkout
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    texts = [str(output) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("turnover" in text for text in texts)
    assert any("avg(paid)" in text for text in texts)


def test_a_monitor_of_spreads_over_two_venues(tmp_path: Path) -> None:
    one = instrument("acme", "spot", "BTCUSDT", "BTC-USDT", "BTC", "USDT", "0.01", "0.001")
    table = InstrumentTable([one, replace(one, venue="zeta", symbol="BTC/USDT")])
    rows = quotes(200, instruments=2)
    rows["bid_price"] = 1_000_000 + np.arange(200) % 7 * 100
    rows["ask_price"] = rows["bid_price"] + 150
    metadata = [orjson.dumps({"key": item.key, **item.to_json()}) for item in table]
    values = [
        record[1] for record in encoder("json", table, bytes(16)).encode(RowClass.QUOTE, rows, 0)
    ]
    with DevBroker({"md.quotes.v1": 1, "md.instruments.v1": 1}) as broker:
        servers = broker.bootstrap_servers

        async def fill() -> None:
            await publish(servers, "md.instruments.v1", 0, metadata)
            await publish(servers, "md.quotes.v1", 0, values)

        asyncio.run(fill())
        text = run("spread_monitor.py", servers, "BTC-USDT", "100", folder=tmp_path)
    head, *lines = text.splitlines()
    assert head == "venues: acme, zeta"
    assert len(lines) == 100
    assert any(line.endswith("bp") and "+" in line for line in lines)
    assert "buy acme:spot:BTCUSDT at" in text
    assert "buy zeta:spot:BTC/USDT at" in text


def test_kcat_reads_the_json_topics(demo: str) -> None:
    if shutil.which("kcat") is None:
        pytest.skip("kcat is not installed (Debian: kcat)")
    ended = subprocess.run(
        ["sh", str(EXAMPLES / "kcat.sh"), demo],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line.split(" ", 1) for line in ended.stdout.splitlines()]
    kinds = [json.loads(value) for _, value in lines]
    assert {one.get("kind") for one in kinds} >= {"trade", None}
    assert sum("tick_size" in one for one in kinds) == SYMBOLS
    assert all(key.startswith("simulated:spot:S") for key, _ in lines)
