"""`ingestor symbols`, on the instrument list of the simulated venue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.cli.symbols import Listed, symbols_text
from ingestor.model.instruments import Contract, instrument
from tests.conftest import Call
from tests.e2e.processes import Venue, environment, simulated_venue


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=12, rate_per_s=1) as venue:
        yield venue


def test_lists_of_a_venue_and_then_of_the_machine(call: Call, venue: Venue, tmp_path: Path) -> None:
    env = environment(tmp_path)
    config = tmp_path / "feeds.toml"
    config.write_text(venue.toml())
    nothing = call("symbols", "--config", str(config), env=env)
    assert nothing.returncode == 2
    assert "no list of instruments is on this machine; name a venue" in nothing.stderr
    table = call("symbols", "simulated", "--config", str(config), env=env)
    assert table.returncode == 0, table.stderr
    head, *lines = table.stdout.splitlines()
    assert head.split() == [
        *("canonical", "venue", "market", "symbol", "type"),
        *("tick", "lot", "multiplier", "expiry", "status"),
    ]
    assert len(lines) == 12
    assert lines[0].split()[:5] == ["S00000-USD", "simulated", "spot", "S00000-USD", "spot"]
    assert {line.split()[-1] for line in lines} == {"trading"}
    some = call("symbols", "simulated", "s0000[12]*", "--config", str(config), "--json", env=env)
    found = json.loads(some.stdout)
    assert [one["canonical"] for one in found] == ["S00001-USD", "S00002-USD"]
    assert found[0]["key"] == "simulated:spot:S00001-USD"
    assert found[0]["multiplier"] == "1"
    assert found[0]["expiry"] is None
    kept = json.loads(call("symbols", "--config", str(config), "--json", env=env).stdout)
    assert len(kept) == 12  # from disk now, without naming the venue
    none = call("symbols", "simulated", "DOGE", "--config", str(config), env=env)
    assert none.returncode == 2
    assert "no symbol fits 'DOGE'" in none.stderr


def test_a_venue_that_does_not_answer_is_one_line(call: Call, tmp_path: Path) -> None:
    config = tmp_path / "feeds.toml"
    config.write_text(
        '[[feeds]]\nvenue = "simulated"\nsymbols = ["*"]\n'
        'url = "ws://127.0.0.1:9"\nrest_url = "http://127.0.0.1:9"\n'
    )
    failed = call("symbols", "simulated", "--config", str(config), env=environment(tmp_path))
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert "127.0.0.1:9" in failed.stderr


def test_derivatives_and_what_does_not_trade() -> None:
    future = instrument(
        *("acme", "futures", "BTCUSD_261225", "BTC-USD-20261225", "BTC", "USD", "0.1", "1"),
        contract=Contract.FUTURE,
        multiplier="100",
        expiry_ns=1_798_185_600 * 10**9,
    )
    listed = [
        Listed("acme", "futures", future.symbol, "trading", future),
        Listed("acme", "futures", "NEWUSD", "PENDING", None),
    ]
    first, second = symbols_text(listed).splitlines()[1:]
    assert first.split()[4:] == ["future", "0.1", "1", "100", "2026-12-25T08:00:00Z", "trading"]
    assert second.split() == ["-", "acme", "futures", "NEWUSD", *["-"] * 5, "PENDING"]
    assert listed[0].matches("BTC-USD-*")
    assert listed[0].matches("*USD_*")
    assert not listed[1].matches("BTC*")
