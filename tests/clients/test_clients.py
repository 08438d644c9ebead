"""Clients that people use find what they need on a served recording: start-up, wss, streams.

They are installed from PyPI into an environment of their own, `.venv-clients`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import command, environment

FOLDER = Path(__file__).parents[2] / ".venv-clients"
PACKAGES = ("ccxt==4.5.90", "python-binance==1.0.37", "pybit==5.17.0", "cryptofeed==2.4.1")
INSTALL_S_MAX = 600
CLIENT_S_MAX = 120
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
BINANCE = ("binance_spot_btcusdt_20240808.jsonl.zst", "binance", "spot")
# script -> what is served to it, what it must tell
CLIENTS: dict[str, tuple[tuple[str, str, str], dict[str, Any]]] = {
    "with_ccxt": (BINANCE, {"types": {"BTC/USDT": "spot"}}),
    "with_python_binance": (BINANCE, {"symbols": ["BTCUSDT"], "bids": 100}),
    "with_pybit": (("bybit.jsonl.zst", "bybit", "linear"), {"has": True, "bids": 50}),
    "with_cryptofeed": (("okx.jsonl.zst", "okx", ""), {"bids": 400}),
}


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of the clients' environment, which is made when needed."""
    found = FOLDER / "bin" / "python"
    stamp = FOLDER / f".installed-{'-'.join(PACKAGES)}"
    if not stamp.exists():
        shutil.rmtree(FOLDER, ignore_errors=True)
        try:
            _call(sys.executable, "-m", "venv", str(FOLDER))
            _call(
                str(found), "-m", "pip", "--disable-pip-version-check", "install", "-q", *PACKAGES
            )
        except subprocess.SubprocessError as failure:
            shutil.rmtree(FOLDER, ignore_errors=True)
            pytest.skip(f"the clients can't be installed: {failure}")
        stamp.touch()
    return found


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=INSTALL_S_MAX)


@contextmanager
def serving(path: Path, venue: str, market: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Serve a recording over TLS; SIGTERM must end it at once, whoever is connected."""
    markets = ("--market", market) if market else ()
    arguments = ("serve", str(path), "--venue", venue, *markets, "--port", "0", "--tls")
    with command(*arguments, env=environment(folder)) as server:
        server.until(lambda: "\n" in server.out)
        yield json.loads(server.out.splitlines()[0])
        server.terminate()
        ended = server.end()
    assert ended.status == 0, ended.err
    assert ended.took_s < 5.0


@pytest.mark.captures
@pytest.mark.long(minutes=3)
@pytest.mark.parametrize("script", CLIENTS)
def test_a_client_of_others(script: str, captures: Path, python: Path, tmp_path: Path) -> None:
    (name, venue, market), expected = CLIENTS[script]
    with serving(captures / name, venue, market, tmp_path) as served:
        trusted = served["certificate"]
        done = subprocess.run(
            [str(python), str(Path(__file__).with_name(f"{script}.py")),
             *(served[name].replace("127.0.0.1", "localhost") for name in ("url", "rest_url"))],
            env={**os.environ, **dict.fromkeys(TRUST, trusted), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=CLIENT_S_MAX,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert {key: told[key] for key in expected} == expected
    counts = [value for value in told.values() if type(value) is int]
    assert len(counts) >= 2
    assert min(counts) >= 5
