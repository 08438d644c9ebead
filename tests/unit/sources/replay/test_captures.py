"""ingestor.sources.replay on recorded traffic: digests, merging, markets, symbols."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.adapter import FeedAdapter
from ingestor.recording.format import HOUR_NS
from ingestor.recording.layout import SUFFIX
from ingestor.recording.reader import Problems
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from tests.fakes.acme import Acme

T0 = 1_790_000_000_000_000_000 // HOUR_NS * HOUR_NS + 60_000_000_000
MS = 1_000_000
ADAPTER: type[FeedAdapter] = Acme
SYMBOLS = ("AAA", "BBB")


CAPTURES = {
    "binance": ("binance", "spot"),
    "binance_futures": ("binance", "usdm"),
    "binance_spot_btcusdt_20240808": ("binance", "spot"),
    "binance_usdm_btcusdt_20240808": ("binance", "usdm"),
    "bybit": ("bybit", "linear"),
    "coinbase": ("coinbase", "spot"),
    "kraken_v2_btcusd_book": ("kraken", "spot"),
    "okx": ("okx", "swap"),
}


@pytest.mark.captures
@pytest.mark.parametrize("name", CAPTURES)
def test_captures_give_one_digest_whatever_the_flushes(captures: Path, name: str) -> None:
    venue, market = CAPTURES[name]
    path = captures / f"{name}{SUFFIX}"
    found = [
        audit(Replay(ReplayOptions((path,), venue=venue, market=market, flush_rows=rows)))
        for rows in (1, 777, 1_000_000)
    ]
    first = found[0]
    assert {one["digest"] for one in found} == {first["digest"]}
    assert first == found[1]
    assert (first["gaps"], first["rejected"], first["unaccounted"]) == (0, 0, 0)
    assert first["books"]["mismatched"] == first["books"]["crossed"] == 0
    assert first["problems"] == first["late_frames"] == 0


@pytest.mark.captures
def test_captures_merge_to_the_same_rows_in_any_order(captures: Path) -> None:
    names = ("binance_spot_btcusdt_20240808", "binance")
    paths = [captures / f"{name}{SUFFIX}" for name in names]

    def rows(*chosen: Path) -> int:
        found = audit(Replay(ReplayOptions(chosen, venue="binance", market="spot")))
        return sum(found["rows"].values())

    assert rows(*paths) == rows(*paths[::-1]) == sum(rows(one) for one in paths)


def keys_of(options: ReplayOptions) -> set[str]:
    problems = Problems()
    replay = Replay(options, problems=problems)
    batches = [batch for result in replay.results() for batch in result.batches]
    assert problems.kept == []
    return {replay.table[n].key for one in batches for n in set(one.rows["instrument"].tolist())}


@pytest.mark.captures
def test_a_market_that_a_venue_does_not_have_was_said_of_others(captures: Path) -> None:
    paths = captures / f"bybit{SUFFIX}", captures / f"coinbase{SUFFIX}"
    symbols = frozenset({"DOGEUSDT", "BTC-USD"})
    keys = keys_of(ReplayOptions(paths, market="linear", symbols=symbols))
    assert keys == {"bybit:linear:DOGEUSDT", "coinbase:spot:BTC-USD"}


@pytest.mark.captures
@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTC-USDT", "btc/usdt", "binance:spot:BTCUSDT"])
def test_a_symbol_whose_base_and_quote_nobody_said(captures: Path, symbol: str) -> None:
    path = captures / f"binance_spot_btcusdt_20240808{SUFFIX}"
    keys = keys_of(ReplayOptions((path,), "binance", "spot", symbols=frozenset({symbol})))
    assert keys == {"binance:spot:BTCUSDT"}
