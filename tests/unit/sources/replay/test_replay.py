"""Replay against the live path, on recordings that the recorder made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import pytest
import zstandard

from ingestor.adapter import FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind
from ingestor.model.timestamps import iso_text
from ingestor.pipeline.pipeline import Pipeline
from ingestor.recording.format import HOUR_NS, RESUBSCRIBE
from ingestor.recording.layout import SUFFIX
from ingestor.recording.reader import Problems
from ingestor.recording.recorder import Recorder
from ingestor.recording.segments import RecorderSettings
from ingestor.sinks.digest import AuditSink, Digest
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from tests.fakes.acme import MARKET, Acme

T0 = 1_790_000_000_000_000_000 // HOUR_NS * HOUR_NS + 60_000_000_000
MS = 1_000_000
ADAPTER: type[FeedAdapter] = Acme
SYMBOLS = ("AAA", "BBB")


def adapters(venue: str) -> type[FeedAdapter]:
    if venue != "acme":
        raise ConfigError(f"unknown venue {venue!r}")
    return ADAPTER


def trade(symbol: str, number: int, price: str = "10.25") -> bytes:
    return b'{"s":"%s","i":%d,"p":"%s","q":"1.5"}' % (symbol.encode(), number, price.encode())


def delta(symbol: str, update: int) -> bytes:
    bids = [["10.00", f"{1 + update % 7}"]]
    return orjson.dumps({"s": symbol, "u": update, "b": bids, "a": [["11.00", "2"]]})


SNAPSHOT = orjson.dumps({"u": 100, "b": [["10.00", "1"], ["9.99", "4"]], "a": [["11.00", "1"]]})


class Live:
    """The live path without sockets, recorded as the supervisor would."""

    def __init__(self, folder: Path, session: str = "live") -> None:
        self.table = InstrumentTable(
            instrument("acme", "spot", one, one, one, "USD", "0.01", "0.001") for one in SYMBOLS
        )
        self.pipeline = Pipeline(self.table, lambda number: MARKET.book)
        self.digest = Digest()
        self.rows = 0
        self.sessions: dict[int, Session] = {}
        self.recorder = Recorder(
            RecorderSettings(folder), session, self.table, lambda one: self.subscriptions[one]
        )
        self.subscriptions: dict[int, list[Subscription]] = {}
        self.recorder.start()
        self.ts_ns = T0

    def open(self, connection: int) -> None:
        self.ts_ns += MS
        self.subscriptions[connection] = [
            Subscription(number, symbol, channel, f"{channel}:{symbol}")
            for number, symbol in enumerate(SYMBOLS)
            for channel in ("trades", "book")
        ]
        session = Session(
            connection,
            Acme("spot", self.table.symbols("acme", "spot")),
            self.subscriptions[connection],
            self.pipeline.buffer,
            FrameCounts(),
            SessionEvents(),
            "spot",
        )
        self.recorder.connected(connection, self.ts_ns, "acme", "spot", "wss://acme.example")
        for frame in session.opened():
            self.recorder.sent(connection, self.ts_ns, frame)
        self.sessions[connection] = session

    def close(self, connection: int) -> None:
        self.ts_ns += MS
        self.sessions.pop(connection).closed(self.ts_ns)
        self.recorder.disconnected(connection, self.ts_ns, "gone")

    def frame(self, connection: int, payload: bytes) -> None:
        self.ts_ns += MS
        self.recorder.received(connection, self.ts_ns, payload)
        self.sessions[connection].receive(payload, self.ts_ns)

    def resubscribe(self, connection: int, *streams: str) -> None:
        """As the repair worker does."""
        self.ts_ns += MS
        decision = {"action": RESUBSCRIBE, "streams": list(streams)}
        self.recorder.record_decision(connection, self.ts_ns, decision)
        self.sessions[connection].interrupt(streams, self.ts_ns)

    def snapshot(self, connection: int, symbol: str, body: bytes = SNAPSHOT) -> None:
        self.ts_ns += MS
        url = f"https://acme.example/v1/depth?symbol={symbol}&limit=100"
        self.recorder.fetched(connection, self.ts_ns, "acme", "spot", url, body)
        self.sessions[connection].snapshot(symbol, body, self.ts_ns)

    def flush(self) -> None:
        for batch in self.pipeline.flush(self.ts_ns).batches:
            self.rows += len(batch)
            self.digest.add(batch)

    def shed(self, number: int) -> None:
        """As the sink does inside a flush."""
        self.flush()
        decision = {"action": "invalidate", "cause": "shed", "key": self.table[number].key}
        self.recorder.record_decision(None, self.ts_ns, decision)
        self.pipeline.books.invalidate(number, Cause.SHED, self.ts_ns)

    async def stop(self) -> str:
        self.flush()
        await self.recorder.stop()
        return self.digest.hexdigest()


def replay(folder: Path, **more: object) -> Replay:
    return Replay(ReplayOptions((folder,), **more), adapters=adapters)  # type: ignore[arg-type]


def eventful(live: Live) -> Iterator[None]:
    """An hour of trouble: a gap, a bad frame, a shed book, a reconnect."""
    live.open(1)
    live.open(2)
    for symbol in SYMBOLS:
        live.snapshot(1, symbol)
    yield
    for n in range(101, 140):
        for symbol in SYMBOLS:
            live.frame(1, delta(symbol, n))
            live.frame(2, trade(symbol, n))
        if n % 10 == 0:
            yield
    live.frame(1, b"{broken")
    live.resubscribe(2, "trades:AAA")
    live.frame(2, trade("AAA", 900, "10.2599"))
    live.snapshot(1, "AAA", orjson.dumps({"u": 140, "b": [["9.00", "1"]], "a": []}))
    yield
    live.frame(1, delta("AAA", 141))
    live.frame(1, delta("AAA", 143))
    live.shed(1)
    yield
    live.snapshot(1, "BBB", orjson.dumps({"u": 200, "b": [["9.00", "1"]], "a": []}))
    live.frame(1, delta("BBB", 201))
    live.close(1)
    live.open(1)
    live.snapshot(1, "AAA")
    live.ts_ns += HOUR_NS
    live.frame(1, delta("AAA", 101))
    live.frame(2, trade("BBB", 950))
    live.frame(1, b'{"notice":1}')
    yield


@pytest.mark.parametrize("flush_rows", [1, 100, 10_000])
async def test_a_recording_replays_as_it_was_live(tmp_path: Path, flush_rows: int) -> None:
    live = Live(tmp_path)
    for _ in eventful(live):
        live.flush()
    expected = await live.stop()
    run = replay(tmp_path, flush_rows=flush_rows)
    found = audit(run)
    assert not run.problems.kept
    assert found["digest"] == expected
    assert found["frames"] == 39 * 4 + 8
    assert sum(found["rows"].values()) == live.rows
    assert found["rejected"] == 2
    assert found["unaccounted"] == 0
    assert found["gaps"] > 4
    assert len(list(tmp_path.rglob(f"*{SUFFIX}"))) == 2


async def test_a_shed_that_was_not_recorded_changes_the_digest(tmp_path: Path) -> None:
    live = Live(tmp_path)
    for _ in eventful(live):
        live.flush()
    live.pipeline.books.invalidate(0, Cause.SHED, live.ts_ns)
    expected = await live.stop()
    assert audit(replay(tmp_path))["digest"] != expected


async def test_sessions_of_several_runs_merge_by_time(tmp_path: Path) -> None:
    one, two = Live(tmp_path, "one"), Live(tmp_path, "two")
    two.table = InstrumentTable()
    one.open(1)
    for n in range(50):
        one.frame(1, trade("AAA", n))
    await one.stop()
    two.recorder = Recorder(
        RecorderSettings(tmp_path), "two", one.table, lambda number: one.subscriptions[1]
    )
    two.recorder.start()
    two.recorder.connected(1, T0, "acme", "spot", "wss://acme.example")
    for n in range(50):
        two.recorder.received(1, T0 + MS // 2 + n * MS, trade("BBB", n))
    await two.recorder.stop()
    run = replay(tmp_path)
    times = [
        int(time)
        for result in run.results()
        for batch in result.batches
        for time in batch.rows["ts_recv"]
    ]
    assert len(times) == 100
    assert times == sorted(times)
    assert run.sessions == ["two", "one"]


async def recorded(folder: Path) -> Live:
    live = Live(folder)
    for _ in eventful(live):
        live.flush()
    await live.stop()
    return live


def batches_of(run: Replay) -> list[TickBatch]:
    return [batch for result in run.results() for batch in result.batches]


async def test_a_range_has_warm_books(tmp_path: Path) -> None:
    await recorded(tmp_path)
    start_ns = T0 + 60 * MS
    whole = [
        row
        for batch in batches_of(replay(tmp_path))
        for row in batch.rows.tolist()
        if start_ns <= row[1] < start_ns + 40 * MS
    ]
    part = replay(tmp_path, start_ns=start_ns, end_ns=start_ns + 40 * MS)
    found = [row for batch in batches_of(part) for row in batch.rows.tolist()]
    assert sorted(found) == sorted(whole)
    assert any(row[6] == Kind.LEVEL for row in found)


async def test_symbols_and_channels_can_be_chosen(tmp_path: Path) -> None:
    await recorded(tmp_path)
    trades = batches_of(replay(tmp_path, channels=frozenset({"trades"})))
    assert {batch.row_class for batch in trades} == {RowClass.TRADE}
    run = replay(tmp_path, symbols=frozenset({"BBB"}))
    numbers = {int(one) for batch in batches_of(run) for one in batch.rows["instrument"]}
    assert [run.table[number].symbol for number in numbers] == ["BBB"]
    with pytest.raises(ConfigError, match="nothing to replay"):
        replay(tmp_path, venues=frozenset({"other"}))


class Clocked(AuditSink):
    """Keeps the time of the loop at which each row came."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float]] = []

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        super().submit(batch, now_ns)
        now_s = asyncio.get_running_loop().time()
        self.seen += [(int(ts_ns), now_s) for ts_ns in batch.rows["ts_recv"]]


async def test_speed_keeps_the_recorded_gaps(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.open(1)
    for n in range(5):
        live.ts_ns += 200 * MS
        live.frame(1, trade("AAA", n))
    expected = await live.stop()
    sink = Clocked()
    await replay(tmp_path).run(sink, speed=5.0)
    assert sink.digest.hexdigest() == expected
    gaps = [later[1] - earlier[1] for earlier, later in zip(sink.seen, sink.seen[1:])]  # noqa: B905
    assert all(gap > 0.02 for gap in gaps)
    assert 0.12 < sum(gaps) < 3.0
    fast = AuditSink()
    await replay(tmp_path).run(fast)
    assert fast.digest.hexdigest() == expected


async def test_a_sink_that_pauses_holds_the_replay(tmp_path: Path) -> None:
    await recorded(tmp_path)
    gate = asyncio.Event()
    sink = Clocked()
    run = replay(tmp_path, flush_rows=1)
    task = asyncio.create_task(run.run(sink, gate=gate))
    await asyncio.sleep(0.1)
    held = len(sink.seen)
    gate.set()
    await task
    assert held < len(sink.seen) / 2


def write(path: Path, lines: Iterable[object]) -> Path:
    text = b"".join(
        line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines
    )
    path.write_bytes(zstandard.compress(text))
    return path


def recv(n: int, payload: bytes) -> dict[str, object]:
    return {"t": "recv", "ts_ns": T0 + n * MS, "conn": "c0", "data": payload.decode()}


def test_a_recording_of_others_without_any_header(tmp_path: Path) -> None:
    depth = {"t": "http", "ts_ns": T0, "url": "/depth", "data": SNAPSHOT.decode()}
    lines = [depth, *(recv(n, delta("AAA", n)) for n in range(95, 110))]
    path = write(tmp_path / f"foreign{SUFFIX}", lines)
    with pytest.raises(ConfigError, match="--venue"):
        replay(path)
    with pytest.raises(ConfigError, match="--market spot or swap"):
        replay(path, venue="acme")
    found = audit(replay(path, venue="acme", market="spot"))
    assert found["instruments"]["inferred"] == ["AAA"]
    assert (found["resets"], found["gaps"], found["rejected"]) == (1, 0, 0)
    assert found["filtered_rows"] == 2 * 6  # at or before the snapshot
    assert found["rows"]["level"] == 3 + 2 * 9


def test_instruments_of_others_come_from_their_rest_answers_or_a_file(tmp_path: Path) -> None:
    header = {"t": "header", "venue": "ACME", "channels": {}}
    listing = {"t": "http", "ts_ns": T0, "url": "https://x/instruments?market=swap", "data": "{}"}
    listing["data"] = '{"AAA":"0.00001"}'
    lines = [header, listing, recv(1, trade("AAA", 1)), recv(2, trade("BBB", 2, "0.10250"))]
    path = write(tmp_path / f"foreign{SUFFIX}", lines)
    run = replay(path, market="spot")
    found = audit(run)
    assert found["instruments"] == {"given": [], "recorded": ["AAA"], "inferred": ["BBB"]}
    assert [(one.symbol, one.price_exponent) for one in run.table] == [("AAA", 5), ("BBB", 5)]
    given = tmp_path / "instruments.json"
    given.write_bytes(orjson.dumps([run.table[1].to_json()]))
    found = audit(replay(path, market="spot", instruments=given))
    assert found["instruments"] == {"given": ["BBB"], "recorded": ["AAA"], "inferred": []}
    given.write_text("[1]")
    with pytest.raises(ConfigError, match="no list of instruments"):
        replay(path, market="spot", instruments=given)


async def test_what_is_broken_is_named_and_the_rest_read(tmp_path: Path) -> None:
    lines = [recv(n, trade("AAA", n)) for n in range(4)]
    bad: list[object] = [*lines[:2], b'{"t":"recv","ts_ns":\n', b"\xff\xfe\n", *lines[2:]]
    bad.insert(1, {"t": "hologram", "ts_ns": T0})
    write(tmp_path / f"bad{SUFFIX}", bad)
    write(tmp_path / f"future{SUFFIX}", [{"t": "header", "format": 9, "venue": "acme"}])
    write(tmp_path / f"other{SUFFIX}", [{"t": "header", "venue": "NOWHERE"}, recv(1, b"{}")])
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    (tmp_path / f"empty{SUFFIX}").touch()
    problems = Problems()
    options = ReplayOptions((tmp_path, tmp_path / "absent"), market="spot")
    header = {"t": "header", "venue": "ACME"}
    write(tmp_path / f"bad{SUFFIX}", [header, *bad])
    found = audit(Replay(options, adapters=adapters, problems=problems))
    assert found["rows"]["trade"] == 4
    said = sorted(str(one).removeprefix(f"{tmp_path}/") for one in problems.kept)
    first = len(orjson.dumps(header)) + 1 + len(orjson.dumps(lines[0])) + 1
    assert [one.partition(", ")[0] for one in said] == [
        "absent", *[f"bad{SUFFIX}"] * 3, f"empty{SUFFIX}", f"future{SUFFIX}",
        f"other{SUFFIX}", "photo.png",
    ]  # fmt: skip
    assert any(one.startswith(f"bad{SUFFIX}, byte {first}:") for one in said)
    assert "format 9 is not known" in said[5]
    assert "unknown venue 'nowhere'" in said[6]


async def test_a_wrong_venue_is_named_and_the_rest_read(tmp_path: Path) -> None:
    live = Live(tmp_path / "ours")
    live.open(1)
    live.frame(1, trade("AAA", 1))
    await live.stop()
    [ours] = (tmp_path / "ours").rglob(f"*{SUFFIX}")
    as_other = Problems()
    with pytest.raises(ConfigError, match="nothing to replay"):
        Replay(ReplayOptions((ours,), "other"), adapters=adapters, problems=as_other)
    assert [str(one) for one in as_other.kept] == [f"{ours}, byte 0: records acme, not other"]

    header = {"t": "header", "venue": "OTHER"}
    foreign = write(tmp_path / f"foreign{SUFFIX}", [header, recv(1, trade("AAA", 2))])
    problems = Problems()
    options = ReplayOptions((ours, foreign), "acme", "spot")
    found = audit(Replay(options, adapters=adapters, problems=problems))
    said = f"{foreign}, byte 0: the header says OTHER, read as acme all the same"
    assert [str(one) for one in problems.kept] == [said]
    assert found["rows"]["trade"] == 2


async def test_a_missing_segment_is_a_hole(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.open(1)
    for hour in range(3):
        live.frame(1, trade("AAA", hour))
        live.ts_ns += HOUR_NS
    await live.stop()
    whole = audit(replay(tmp_path))
    assert (whole["rows"]["trade"], whole["gaps"], whole["problems"]) == (3, 0, 0)
    sorted(tmp_path.rglob(f"*{SUFFIX}"))[1].unlink()
    run = replay(tmp_path)
    found = audit(run)
    assert found["rows"]["trade"] == 2
    assert found["gaps"] >= 2  # both symbols' trades, declared
    (problem,) = run.problems.kept
    assert "1 lines are missing before line number" in str(problem)
    assert iso_text(T0)[:13] in str(run.files[0]).replace("/hour=", "T").replace("date=", "")
