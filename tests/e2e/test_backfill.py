"""Lost trades at emulated venues: each is declared, each is fetched, and none comes twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from ingestor.consumer import in_place
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows
from ingestor.testbed.emulator.faults import Fault, Faults
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.e2e.harness import Running, make_config, running
from tests.e2e.test_digest import Seen, decisions, replayed
from tests.testbed.made import START_NS, write

TRADES: Final = 2_400
HOLES: Final = 20
LOST: Final = 50  # trades in each
GAP_NS: Final = 1_000_000
MS: Final = 1_767_225_600_000  # a time of the venue
FIRST: Final = 700_000_001  # number of the first trade


def okx(number: int) -> Any:
    trade = {"instId": "BTC-USDT", "tradeId": str(FIRST + number), "px": f"{100 + number % 9}.5"}
    trade |= {"sz": f"1.{number % 7}", "side": "buy" if number % 2 else "sell"}
    trade |= {"ts": str(MS + number), "count": "1", "source": "1" if number % 5 == 0 else "0"}
    return {"arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [trade]}


def binance(number: int) -> Any:
    trade = {"e": "trade", "E": MS + number, "s": "BNBBTC", "t": FIRST + number}
    price, size = f"{100 + number % 9}.50000000", f"1.{number % 7}0000000"  # as its lists have it
    trade |= {"p": price, "q": size, "T": MS + number}
    return {"stream": "bnbbtc@trade", "data": trade | {"m": number % 2 == 0, "M": True}}


def kraken(number: int) -> Any:
    seconds, micros = divmod(number * 1_000, 1_000_000)
    trade: dict[str, Any] = {"symbol": "BTC/USD", "side": "buy" if number % 2 else "sell"}
    trade |= {"price": 100.5 + number % 9, "qty": 1.25 + number % 7, "ord_type": "limit"}
    trade |= {"trade_id": FIRST + number}
    trade |= {"timestamp": f"2026-01-01T00:00:{seconds:02}.{micros:06}Z"}
    return {"channel": "trade", "type": "update", "data": [trade]}


def coinbase(number: int) -> Any:
    trade = {"trade_id": str(FIRST + number), "product_id": "BTC-USD", "side": "BUY"}
    trade |= {"price": f"{100 + number % 9}.5", "size": f"1.{number % 7}"}
    seconds, micros = divmod(number * 1_000, 1_000_000)
    trade |= {"time": f"2026-01-01T00:00:{seconds:02}.{micros:06}Z"}
    message = {"channel": "market_trades", "client_id": "", "timestamp": trade["time"]}
    return message | {"sequence_num": number, "events": [{"type": "update", "trades": [trade]}]}


def bybit(number: int) -> Any:
    trade = {
        "T": MS + number,
        "s": "BTCUSDT",
        "S": "Buy" if number % 2 else "Sell",
        "L": "PlusTick",
    }
    trade |= {"v": f"1.{number % 7}", "p": f"{100 + number % 9}.5", "seq": FIRST + 3 * number}
    trade |= {"i": f"20f43950-d8dd-5b31-9112-{number:012}", "BT": number % 5 == 0, "RPI": False}
    topic = {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": MS + number}
    return topic | {"data": [trade]}


@dataclass(frozen=True)
class At:
    """A venue's market, and what its trades look like."""

    venue: str
    market: str
    symbol: str
    frame: Callable[[int], Any]

    @property
    def key(self) -> str:
        return f"{self.venue}:{self.market}:{self.symbol}"

    def recording(self, folder: Path) -> Path:
        names = {"bybit": "BYBIT", "okx": "OKX", "binance": "BINANCE", "kraken": "KRAKEN"}
        name = names.get(self.venue, "COINBASE")
        lines: list[dict[str, Any]] = [{"t": "header", "venue": name, "channels": {}}]
        for number in range(TRADES):
            data = json.dumps(self.frame(number), separators=(",", ":"))
            ts_ns = START_NS + number * GAP_NS
            lines.append({"t": "recv", "ts_ns": ts_ns, "conn": "c", "data": data})
        return write(folder / f"{self.venue}.jsonl.zst", lines)


OKX: Final = At("okx", "spot", "BTC-USDT", okx)
BINANCE: Final = At("binance", "spot", "BNBBTC", binance)
KRAKEN: Final = At("kraken", "spot", "BTC/USD", kraken)
COINBASE: Final = At("coinbase", "spot", "BTC-USD", coinbase)
BYBIT: Final = At("bybit", "linear", "BTCUSDT", bybit)


def dropped(holes: int = HOLES, lost: int = LOST) -> Faults:
    """Faults that lose `lost` frames at each of so many places; the first and last come."""
    every = TRADES // (holes + 1)
    starts = range(every // 2, every // 2 + every * holes, every)
    return Faults(at={start + one: Fault.DROP for start in starts for one in range(lost)})


def config_of(at: At, emulator: VenueEmulator, tmp_path: Path, **trades: Any) -> Any:
    feed = {
        "venue": at.venue,
        "market": at.market,
        "symbols": [at.symbol],
        "channels": ["trades"],
        "url": emulator.ws_url,
        "rest_url": emulator.rest_url,
    }
    return make_config(
        "127.0.0.1:9",
        [feed],
        tmp_path,
        trades={"backfill_delay_s": 0.05, **trades},
        limits={"rest_weight_per_s": 1_000.0},
        recorder={"path": tmp_path / "recording"},
    )


async def played(at: At, tmp_path: Path, faults: Faults, done: Any, **trades: Any) -> Rows:
    """Run an ingestor on the emulated venue until `done(run, emulator)`; return its trades, which
    a replay of what it recorded gives too."""
    live = Seen()
    async with VenueEmulator(
        [at.recording(tmp_path)], speed=MAX_SPEED, start_when="first", faults=faults
    ) as emulator:
        async with running(config_of(at, emulator, tmp_path, **trades), publish=False) as run:
            run.ingestor.flusher.observe(live.observe)
            await run.until(lambda: emulator.finished.is_set() and done(run))
            await run.stop()
        assert run.ingestor.pipeline.ledger().unaccounted == 0
    again = Seen()
    replayed(tmp_path / "recording", again)
    assert again.digest.by_stream() == live.digest.by_stream()
    return live.rows()[at.key, RowClass.TRADE]


def clean(at: At, tmp_path: Path) -> list[tuple[int, ...]]:
    """Return all trades of the recording, without our clock."""
    seen = Seen()
    replayed(at.recording(tmp_path), seen, venue=at.venue, market=at.market)
    return facts(seen.rows()[at.key, RowClass.TRADE])


def facts(rows: Rows) -> list[tuple[int, ...]]:
    trades = rows[rows["kind"] == Kind.TRADE].copy()
    trades["flags"] &= ~np.uint16(Flag.BACKFILL)
    trades["ts_recv"] = 0
    return trades.tolist()  # type: ignore[no-any-return]  # a list of tuples


def filled(at: At) -> Callable[[Running], bool]:
    def is_filled(run: Running) -> bool:
        gaps = run.ingestor.pipeline.trade_gaps
        return gaps.filled[at.venue, at.market] == HOLES * LOST

    return is_filled


@pytest.mark.parametrize("at", [BINANCE, OKX, KRAKEN], ids=lambda at: at.venue)
async def test_a_thousand_lost_trades_are_declared_and_filled(at: At, tmp_path: Path) -> None:
    rows = await played(at, tmp_path, dropped(), filled(at))
    gaps = rows[rows["kind"] == Kind.GAP]
    assert {*gaps["side"].tolist()} == {Cause.SEQUENCE}
    assert len(gaps) == HOLES
    declared = {
        number
        for first, last in gaps[["price", "size"]].tolist()
        for number in range(first, last + 1)
    }
    fetched = rows[(rows["flags"] & Flag.BACKFILL) != 0]["sequence"].tolist()
    assert sorted(fetched) == sorted(declared)
    assert len(declared) == HOLES * LOST
    everything = clean(at, tmp_path)
    assert len(everything) == TRADES
    assert sorted(facts(rows)) == sorted(everything)
    assert facts(in_place(rows)) == everything  # in order, each where it was lost


@pytest.mark.parametrize("at", [COINBASE, BYBIT], ids=lambda at: at.venue)
async def test_where_numbers_only_ascend_a_hole_is_filled_too(at: At, tmp_path: Path) -> None:
    """Coinbase counts its messages; at Bybit, which gives its newest 1,000 trades, an unreadable
    frame is what tells of a hole."""
    start = TRADES - 500
    fault = Fault.DROP if at is COINBASE else Fault.MALFORMED
    faults = Faults(at=dict.fromkeys(range(start, start + LOST), fault))

    def is_filled(run: Running) -> bool:
        return run.ingestor.pipeline.trade_gaps.filled[at.venue, at.market] == LOST

    rows = await played(at, tmp_path, faults, is_filled)
    everything = clean(at, tmp_path)
    assert facts(in_place(rows)) == everything
    assert (rows["flags"] & Flag.BACKFILL != 0).sum() == LOST


async def test_what_a_reconnect_missed_is_filled(tmp_path: Path) -> None:
    faults = Faults(at={TRADES // 2: Fault.DISCONNECT})

    def is_complete(run: Running) -> bool:
        gaps = run.ingestor.pipeline.trade_gaps
        lost = gaps.lost["binance", "spot"]
        return lost > 0 and gaps.filled["binance", "spot"] == lost

    # At a pace, so that the connection is there again before all was played.
    live = Seen()
    async with (
        VenueEmulator(
            [BINANCE.recording(tmp_path)], speed=1.0, start_when="first", faults=faults
        ) as emulator,
        running(config_of(BINANCE, emulator, tmp_path), publish=False) as run,
    ):
        run.ingestor.flusher.observe(live.observe)
        await run.until(lambda: emulator.finished.is_set() and is_complete(run))
        await run.stop()
    rows = live.rows()[BINANCE.key, RowClass.TRADE]
    causes = rows["side"][rows["kind"] == Kind.GAP].tolist()
    assert causes == [Cause.DISCONNECT, Cause.SEQUENCE]
    assert facts(in_place(rows)) == clean(BINANCE, tmp_path)


async def test_what_cannot_be_filled_says_so(tmp_path: Path) -> None:
    faults = dropped(holes=1)

    def is_given_up(run: Running) -> bool:
        return run.ingestor.pipeline.trade_gaps.unfilled["okx", "spot"] == LOST

    rows = await played(OKX, tmp_path, faults, is_given_up, backfill_trades_max=LOST - 1)
    gaps = rows[rows["kind"] == Kind.GAP]
    assert gaps["side"].tolist() == [Cause.SEQUENCE, Cause.UNFILLED]
    asked, given_up = gaps[["price", "size"]].tolist()
    assert asked == given_up
    assert decisions(tmp_path / "recording")["unfilled"] == 1
