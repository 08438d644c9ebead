"""A recording of several markets is read as those that its addresses name; filters that match
nothing say so."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from feeds.binance import adapter as Binance
from feeds.bitget import adapter as Bitget
from feeds.bybit import adapter as Bybit
from feeds.gateio import adapter as Gate
from feeds.hyperliquid import adapter as Hyperliquid
from feeds.krakenfutures import adapter as KrakenFutures
from feeds.lighter import adapter as Lighter
from ingestor import history
from ingestor.adapter import FeedAdapter
from ingestor.model.errors import ConfigError
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.testbed.emulator.playback import survey as survey_to_serve
from tests.feeds.fixtures import load

TS_NS = 1_800_000_000_000_000_000
AdapterType = type[FeedAdapter]


def written(
    path: Path, adapter: AdapterType, markets: Iterable[str], *, url: str | None = None
) -> Path:
    """Write the accepted frames of several fixtures into one file, a connection for each.

    url: of all connections, instead of the markets' own; "" leaves the lines out.
    """
    lines: list[dict[str, Any]] = [{"t": "header", "venue": adapter.venue.upper()}]
    for market in markets:
        own = adapter.markets[market].endpoints[0].url if url is None else url
        if own:
            lines.append({"t": "connect", "ts_ns": TS_NS, "conn": market, "url": own})
    for market in markets:
        for step in load(adapter, market).steps:
            if step.verb == "frame" and step.outcome == "expect":
                frame = {"ts_ns": TS_NS + len(lines), "conn": market, "data": step.value}
                lines.append({"t": "recv", **frame})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def counted(options: ReplayOptions) -> Counter[str]:
    """Rows by venue:market."""
    replay = Replay(options)
    found: Counter[str] = Counter()
    for result in replay.results():
        for batch in result.batches:
            found.update(
                ":".join(batch.instruments[number].key.split(":")[:2])
                for number in batch.rows["instrument"].tolist()
            )
    replay.check_filters()
    assert sum(one.rejected for one in replay.counts.values()) == 0
    return found


SEVERAL = [
    pytest.param(Binance, ("spot", "usdm", "coinm"), id="hosts"),
    pytest.param(Bybit, ("spot", "linear", "inverse"), id="paths"),
]


@pytest.mark.parametrize(("adapter", "markets"), SEVERAL)
def test_addresses_name_the_markets(
    adapter: AdapterType, markets: tuple[str, ...], tmp_path: Path
) -> None:
    path = written(tmp_path / "several.jsonl", adapter, markets)
    found = counted(ReplayOptions((path,)))
    assert set(found) == {f"{adapter.venue}:{market}" for market in markets}
    for market in markets:
        alone = written(tmp_path / "alone.jsonl", adapter, [market])
        expected = counted(ReplayOptions((alone,)))
        assert expected == {f"{adapter.venue}:{market}": found[f"{adapter.venue}:{market}"]}
        assert counted(ReplayOptions((path,), market=market)) == expected, (
            "those of others left out"
        )
    rows = sum(len(batch) for batch in history.open(path))
    assert rows == found.total()


@pytest.mark.parametrize(("adapter", "markets"), SEVERAL)
def test_each_market_is_served(
    adapter: AdapterType, markets: tuple[str, ...], tmp_path: Path
) -> None:
    path = written(tmp_path / "several.jsonl", adapter, markets)
    assert {one.key for one in survey_to_serve([path])} == {
        (adapter.venue, market) for market in markets
    }


@pytest.mark.parametrize(
    ("adapter", "market", "url"),
    [
        (Binance, "usdm", ""),
        (Binance, "usdm", "ws://127.0.0.1:8765/stream"),
        (Lighter, "perp", None),
    ],
    ids=["none", "proxy", "shared"],
)
def test_where_the_market_is_not_told_it_is_asked_for(
    adapter: AdapterType, market: str, url: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path / "one.jsonl", adapter, [market], url=url)
    symbol = load(adapter, market).instruments[0].symbol
    with pytest.raises(ConfigError, match=f"does not say its market; it holds .*{symbol}") as found:
        Replay(ReplayOptions((path,)))
    assert f"say --market {' or '.join(adapter.markets)}" in str(found.value)
    assert counted(ReplayOptions((path,), market=market))


def on_one_connection(path: Path) -> None:
    text = re.sub(r'"conn": "[a-z]*"', '"conn": "one"', path.read_text())
    path.write_text("\n".join(dict.fromkeys(text.splitlines())))


SHARED = [
    pytest.param(KrakenFutures, ("linear", "inverse"), id="names"),
    pytest.param(Hyperliquid, ("perp", "spot"), id="coins"),
    pytest.param(Bitget, ("spot", "usdt", "usdc", "coin"), id="frames"),
]


@pytest.mark.parametrize(("adapter", "markets"), SHARED)
def test_markets_of_one_connection_are_told_apart_by_symbols(
    adapter: AdapterType, markets: tuple[str, ...], tmp_path: Path
) -> None:
    path = written(tmp_path / "several.jsonl", adapter, markets)
    on_one_connection(path)
    alone = Counter[str]()
    for market in markets:
        alone += counted(
            ReplayOptions((written(tmp_path / "alone.jsonl", adapter, [market]),), market=market)
        )
    assert len(alone) == len(markets)
    assert counted(ReplayOptions((path,))) == alone


def test_what_is_of_another_market_is_left_out_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "several.jsonl", Hyperliquid, ("perp", "spot"))
    on_one_connection(path)
    replay = Replay(ReplayOptions((path,)))
    rows = sum(len(batch) for result in replay.results() for batch in result.batches)
    assert rows
    left_out = {key: one.filtered_by_rule["other_market"] for key, one in replay.counts.items()}
    assert set(left_out) == {("hyperliquid", "perp"), ("hyperliquid", "spot")}
    assert all(left_out.values())
    assert not any(one.unaccounted for one in replay.counts.values())
    assert replay.files == [path]


def test_a_refusal_to_others_costs_no_stream(tmp_path: Path) -> None:
    """The numbers of their requests are not ours."""
    path = written(tmp_path / "one.jsonl", Gate, ["spot"])
    rows = counted(ReplayOptions((path,)))
    refusal = {"channel": "spot.trades", "event": "subscribe", "error": {"code": 2, "message": "x"}}
    frames = [json.dumps(refusal | {"id": number}) for number in range(1, 9)]
    lines = path.read_text().splitlines()
    refusals = [
        json.dumps({"t": "recv", "ts_ns": TS_NS, "conn": "spot", "data": frame}) for frame in frames
    ]
    path.write_text("\n".join([*lines[:2], *refusals, *lines[2:]]))
    assert counted(ReplayOptions((path,))) == rows


def test_a_market_that_no_address_names(tmp_path: Path) -> None:
    path = written(tmp_path / "one.jsonl", Binance, ["usdm"])
    with pytest.raises(ConfigError, match="of other markets than spot; leave --market out"):
        Replay(ReplayOptions((path,), market="spot"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"symbols": {"BTCUSD"}}, "no instrument 'BTCUSD' is recorded; did you mean BTCUSDT"),
        ({"symbols": {"BTCUSDT", "ZZZ"}}, "no instrument 'ZZZ' is recorded; known are"),
        ({"venues": {"kraken"}}, "records binance, not kraken"),
        ({"start_ns": 2 * TS_NS}, "no rows are left by the filters; what was read is of 20"),
        ({"end_ns": 5}, "no rows are left by the filters"),
    ],
)
def test_a_filter_that_matches_nothing(options: dict[str, Any], what: str, tmp_path: Path) -> None:
    path = written(tmp_path / "one.jsonl", Binance, ["spot"])
    with pytest.raises(ConfigError, match=what):
        counted(ReplayOptions((path,), **options))


def test_a_channel_that_is_not_recorded(tmp_path: Path) -> None:
    path = written(tmp_path / "one.jsonl", Binance, ["spot"])
    lines = [line for line in path.read_text().splitlines() if "bookTicker" not in line]
    path.write_text("\n".join(line for line in lines if '\\"u\\":7000005' not in line))
    with pytest.raises(
        ConfigError, match="no rows of quotes are recorded; there is candles, trades"
    ):
        counted(ReplayOptions((path,), channels=frozenset({"quotes"})))
    with pytest.raises(ConfigError, match="no rows of quotes"):
        list(history.open(path, kinds=["quotes"]))


def test_one_absurd_number_refuses_its_frame_alone(tmp_path: Path) -> None:
    """Though the recording lists the instrument, and though the number has 18 digits before its
    point."""
    for poison in ("83000.123456789012345678", "123456789012345678.5"):
        path = written(tmp_path / "one.jsonl", Bybit, ["spot"])
        fixture = load(Bybit, "spot")
        lines = path.read_text().splitlines()
        request = Bybit.instrument_requests("spot")[0]
        host = Bybit.markets["spot"].rest_url
        listing = {"t": "http", "ts_ns": TS_NS, "url": f"{host}{request.path}?category=spot",
                   "data": fixture.rest[0].decode()}  # fmt: skip
        trade = next(line for line in lines if "publicTrade" in line)
        price = json.loads(json.loads(trade)["data"])["data"][0]["p"]
        bad = trade.replace(f'\\"p\\":\\"{price}\\"', f'\\"p\\":\\"{poison}\\"', 1)
        assert bad != trade
        path.write_text("\n".join([lines[0], json.dumps(listing), *lines[1:], bad]))
        replay = Replay(ReplayOptions((path,)))
        for _ in replay.results():
            pass
        assert sum(one.rejected for one in replay.counts.values()) == 1
        listed = {one.symbol: one for one in fixture.instruments}
        for one in replay.table:
            assert one.price_exponent == listed[one.symbol].price_exponent
