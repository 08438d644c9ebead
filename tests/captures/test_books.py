"""Books on recorded traffic: proved on clean frames, and with frames lost, doubled, reordered, cut.

Each damaged run is compared with the clean run of the same recording, flush by flush. The repair
that the books ask for is answered with the clean run's book.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

import pytest

from feeds.binance import Binance
from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.books.manager import BookManager
from ingestor.books.settings import BookSettings
from ingestor.columns.buffer import ColumnBuffer
from ingestor.consumer.orderbook import OrderBooks
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, Symbols, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Flag, Kind
from tests.captures.frames import lines

pytestmark = pytest.mark.captures

Sides = tuple[dict[int, int], dict[int, int]]


@dataclass(frozen=True)
class Recording:
    """A file, its venue, the decimals of its prices, and what its books must show."""

    adapter: type[FeedAdapter]
    market: str
    decimals: int
    resets: int
    frames_damaged: int  # how much of it the damaged runs use


RECORDINGS = MappingProxyType(
    {
        "binance": Recording(Binance, "spot", 8, 4, 137),
        "binance_futures": Recording(Binance, "usdm", 8, 4, 700),
        "binance_spot_btcusdt_20240808": Recording(Binance, "spot", 8, 1, 900),
        "binance_usdm_btcusdt_20240808": Recording(Binance, "usdm", 8, 1, 700),
        "bybit": Recording(Bybit, "linear", 8, 4, 700),
        "coinbase": Recording(Coinbase, "spot", 8, 2, 160),
        "kraken_v2_btcusd_book": Recording(Kraken, "spot", 1, 5, 377),
        "okx": Recording(Okx, "spot", 8, 3, 205),
    }
)


class Found(Symbols):
    """Symbols that are added to the table when they are first heard of."""

    def __init__(self, table: InstrumentTable, recording: Recording) -> None:
        super().__init__(recording.adapter.venue)
        self.table = table
        self.recording = recording

    def __missing__(self, symbol: str) -> int:
        tick = f"1e-{self.recording.decimals}"
        one = instrument(
            self.venue, self.recording.market, symbol, symbol, symbol, "", tick, "1e-8"
        )
        self[symbol] = self.table.add(one)
        return self[symbol]


@dataclass(frozen=True)
class Frame:
    ts_ns: int
    payload: bytes
    snapshot_of: str = ""  # symbol of a REST answer


@cache
def frames(path: Path) -> list[Frame]:
    found = []
    for line in lines(path):
        if line["t"] == "recv":
            found.append(Frame(line["ts_ns"], line["data"].encode()))
        elif line["t"] == "http" and "depth" in line["url"]:
            query = parse_qs(urlsplit(line["url"]).query)
            symbol = query.get("symbol", ["BTCUSDT"])[0]
            found.append(Frame(line["ts_ns"], line["data"].encode(), symbol))
    return found


@dataclass
class Run:
    """One pass through a recording: decoder, books, and a strategy's books behind them."""

    recording: Recording
    table: InstrumentTable = field(default_factory=InstrumentTable)
    gaps: int = 0
    levels: int = 0
    last_ts_ns: int = 0

    def __post_init__(self) -> None:
        recording = self.recording
        self.symbols = Found(self.table, recording)
        self.buffer = ColumnBuffer()
        rule = recording.adapter.markets[recording.market].book
        self.books = BookManager(self.table, lambda _: rule, BookSettings(repairs_per_s=1_000))
        self.session = Session(
            0,
            recording.adapter(recording.market, self.symbols),
            [],
            self.buffer,
            FrameCounts(),
            SessionEvents(),
            recording.market,
        )
        self.consumer = OrderBooks()
        self.asked: set[int] = set()
        self.balance = 0

    def feed(self, frame: Frame) -> None:
        if frame.snapshot_of:
            self.session.snapshot(frame.snapshot_of, frame.payload, frame.ts_ns)
        else:
            self.session.receive(frame.payload, frame.ts_ns)
        self.last_ts_ns = max(self.last_ts_ns, frame.ts_ns)

    def flush(self) -> list[int]:
        """Return the instruments of the updates in this flush."""
        session = self.session
        session.subscriptions = [
            Subscription(number, symbol, "book", symbol) for symbol, number in self.symbols.items()
        ]
        sealed = self.buffer.seal(self.table)
        held = self.balance
        output = self.books.apply(sealed, self.last_ts_ns)
        self.balance = output.held
        published = int((output.rows["kind"] == Kind.LEVEL).sum())
        assert len(sealed.prices) + held + len(output.added) == (
            published + output.filtered + output.held
        )
        self.levels += len(sealed.prices)
        self.gaps += int((output.rows["kind"] == Kind.GAP).sum())
        self.asked |= {repair.instrument for repair in output.repairs}
        self.consumer.feed(TickBatch(RowClass.LEVEL, output.rows, self.table))
        instruments: list[int] = sealed.updates["instrument"].tolist()
        return instruments

    def book(self, number: int) -> Sides | None:
        """Return the consumer's book; None while it is invalid."""
        book = self.consumer.get(self.table[number].key)
        if book is None or not book.is_valid:
            return None
        bids, asks = (
            dict(zip(levels.prices.tolist(), levels.sizes.tolist(), strict=True))
            for levels in (book.bids(), book.asks())
        )
        return bids, asks

    def sequence(self, number: int) -> int:
        return self.consumer[self.table[number].key].sequence

    def repair(self, clean: dict[int, tuple[int, Sides]]) -> None:
        """Answer what was asked for with the books of the clean run, where it has them."""
        for number in sorted(self.asked & clean.keys()):
            last, (bids, asks) = clean[number]
            self.buffer.begin(self.session, b"{}")
            decimals = self.recording.decimals
            self.buffer.add_book_update(
                number,
                self.last_ts_ns,
                self.last_ts_ns,
                [(f"{price}e-{decimals}", f"{size}e-8") for price, size in bids.items()],
                [(f"{price}e-{decimals}", f"{size}e-8") for price, size in asks.items()],
                first=last,
                last=last,
                flags=Flag.SNAPSHOT,
            )
            self.asked.discard(number)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_clean_recording_has_no_gap_and_no_contradiction(captures: Path, name: str) -> None:
    recording = RECORDINGS[name]
    run = Run(recording)
    for count, frame in enumerate(frames(captures / f"{name}.jsonl.zst")):
        run.feed(frame)
        if count % 50 == 49:
            run.flush()
    run.flush()
    line = run.books.statistics()[recording.adapter.venue, recording.market]
    assert run.gaps == line.gaps == line.mismatched == line.crossed == line.held == 0
    assert run.session.counts.rejected == 0
    assert run.levels > 400
    assert line.valid == line.books == len(run.consumer) > 0
    assert line.resets == recording.resets
    assert set(line.repairs) <= {"first"}
    if recording.adapter is Binance:
        assert line.verified == witnessed(frames(captures / f"{name}.jsonl.zst")) > 0
    if recording.adapter in {Kraken, Okx}:
        assert line.unverifiable == 0


def witnessed(recorded: list[Frame]) -> int:
    """Return how many updates (snapshots among them) have a bookTicker of their number."""
    updates: dict[str, set[int]] = {}
    quotes: dict[str, set[int]] = {}
    for frame in recorded:
        message = json.loads(frame.payload)
        data = message.get("data", message)
        if frame.snapshot_of:
            updates.setdefault(frame.snapshot_of, set()).add(data["lastUpdateId"])
        elif data.get("e") == "depthUpdate":
            updates.setdefault(data["s"], set()).add(data["u"])
        elif "B" in data:
            quotes.setdefault(data["s"], set()).add(data["u"])
    seeds = {
        frame.snapshot_of: json.loads(frame.payload)["lastUpdateId"]
        for frame in recorded
        if frame.snapshot_of
    }
    return sum(
        number >= seeds[symbol] and number in quotes.get(symbol, ())
        for symbol, numbers in updates.items()
        for number in numbers
    )


FLUSH = 10  # frames


@cache
def clean_run(path: Path, name: str) -> tuple[list[dict[int, tuple[int, Sides]]], list[list[int]]]:
    """Return, per flush, the valid books with their number, and per frame the books it updates."""
    recording = RECORDINGS[name]
    run, books, touched = Run(recording), [], []
    for count, frame in enumerate(frames(path)[: recording.frames_damaged]):
        run.feed(frame)
        touched.append(run.flush())
        if count % FLUSH == FLUSH - 1:
            valid = {number: run.book(number) for number in range(len(run.table))}
            books.append(
                {
                    number: (run.sequence(number), book)
                    for number, book in valid.items()
                    if book is not None
                }
            )
    return books, touched


def damage(sent: list[Frame], kind: str, at: int) -> list[list[Frame]]:
    """Return the frames flush by flush, with one of them damaged."""
    flushes = [sent[start : start + FLUSH] for start in range(0, len(sent), FLUSH)]
    flush, place = flushes[at // FLUSH], at % FLUSH
    frame = flush[place]
    match kind:
        case "drop":
            del flush[place]
        case "double":
            flush.insert(place, frame)
        case "truncate":
            cut = Frame(frame.ts_ns, frame.payload[: len(frame.payload) // 2])
            flush[place] = cut
        case "reorder":
            del flush[place]
            flush.insert(place + 1, frame)
    return flushes


NAMES = [name for name in RECORDINGS if name != "okx"]  # that file has no numbers: nothing to see


KINDS = ("drop", "double", "reorder", "truncate")


@pytest.mark.parametrize("seed", range(len(NAMES) * len(KINDS)))
def test_every_loss_that_can_be_seen_is_named_and_repaired(captures: Path, seed: int) -> None:
    """Each kind of damage in each recording."""
    check_damaged_run(captures, seed)


@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("seed", range(len(NAMES) * len(KINDS), 200))
def test_every_loss_at_other_places(captures: Path, seed: int) -> None:
    check_damaged_run(captures, seed)


def check_damaged_run(captures: Path, seed: int) -> None:
    rng = random.Random(seed)
    name = NAMES[seed % len(NAMES)]
    kind = KINDS[seed // len(NAMES) % len(KINDS)]
    recording, path = RECORDINGS[name], captures / f"{name}.jsonl.zst"
    clean, touched = clean_run(path, name)
    sent = frames(path)[: len(clean) * FLUSH]
    live = [
        at
        for at in range(len(sent) // 10, len(sent) * 8 // 10)
        if touched[at] and at % FLUSH < FLUSH - 1 and not sent[at].snapshot_of
    ]
    at = rng.choice(live)
    run = Run(recording)
    for number in range(len(clean[-1])):  # the same numbers as in the clean run
        assert number in clean[-1]
    since: set[int] = set()  # books that had an update after the damage
    for count, flush in enumerate(damage(sent, kind, at)):
        for frame in flush:
            run.feed(frame)
        updated = run.flush()
        if count > at // FLUSH:
            since |= set(updated)
        if run.asked and count >= at // FLUSH:
            run.repair(clean[count])
            run.flush()
        if count < at // FLUSH - 1:
            continue
        for number, (sequence, book) in clean[count].items():
            have = run.book(number)
            if have is None:
                assert count >= at // FLUSH
                assert run.gaps
            elif number in since or count < at // FLUSH:
                assert have == book, (name, kind, at, count)
                assert run.sequence(number) == sequence
    for number, (_, book) in clean[-1].items():
        if number in since:
            assert run.book(number) == book
    concerned = set(touched[at]) & since
    if kind == "truncate" or (kind == "drop" and concerned and recording.adapter is not Kraken):
        assert run.gaps > 0
    if kind == "double":
        assert run.gaps == 0
