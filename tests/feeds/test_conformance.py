"""What every adapter must do, shown on its fixtures. No venue is named, none left out."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from decimal import Decimal
from urllib.parse import urlsplit
from zlib import crc32

import pytest

import feeds
from ingestor.adapter import Acks, FeedAdapter, SnapshotSource
from ingestor.adapter.instrument_list import read_list
from ingestor.model.errors import UnknownInstrument, UnknownMessage
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.sources.registry import discover
from tests.feeds.fixtures import Fixture, adapters, by_kind, load, markets, normal
from tests.feeds.harness import Connection, channels_of, outcomes, rows_of

MARKETS = [pytest.param(*pair, id=f"{pair[0].venue}_{pair[1]}") for pair in markets()]
STEPS = [
    pytest.param(adapter, market, index, id=f"{adapter.venue}_{market}:{step.line}")
    for adapter, market in markets()
    for index, step in enumerate(load(adapter, market).steps)
]
AdapterType = type[FeedAdapter]

each_market = pytest.mark.parametrize(("adapter", "market"), MARKETS)
each_step = pytest.mark.parametrize(("adapter", "market", "index"), STEPS)


@pytest.mark.parametrize("adapter", adapters(), ids=lambda adapter: adapter.venue)
def test_the_contract_is_whole(adapter: AdapterType) -> None:
    module = inspect.getmodule(adapter)
    assert module is not None
    source = discover(feeds, ()).sources[adapter.venue]
    assert module.__name__.startswith(source.target)
    assert source.target.rpartition(".")[2] == adapter.venue
    assert adapter.reference.rstrip()[-10:].count("-") == 2, "the day on which it was read"
    assert module.__doc__
    members = {name for name, _ in inspect.getmembers(FeedAdapter) if not name.startswith("_")}
    members |= set(FeedAdapter.__annotations__)
    assert {name for name in members if not hasattr(adapter, name)} == set()
    assert adapter.markets


@each_market
def test_limits_and_addresses_are_sane(adapter: AdapterType, market: str) -> None:
    described = adapter.markets[market]
    limits = described.limits
    assert 1 <= limits.streams_per_subscribe <= limits.streams_per_connection
    assert 0 < limits.connects_per_s <= 100
    assert limits.connects_burst >= 1
    assert 0 < limits.requests_per_s <= 1_000
    assert 1 << 16 <= limits.frame_bytes_max <= 1 << 26
    assert limits.ping_interval_s is None or 1 <= limits.ping_interval_s <= 300
    assert limits.lifetime_s is None or limits.lifetime_s >= 60
    carried = [channel for endpoint in described.endpoints for channel in endpoint.channels]
    assert len(carried) == len({*carried}), "each channel on one endpoint"
    assert {one.channel for one in ROW_CLASSES if one.is_standard} <= {*carried}
    assert {*carried} <= {*ROW_CLASSES.channels}
    for endpoint in described.endpoints:
        assert urlsplit(endpoint.url).scheme in {"wss", "ws"}
    assert urlsplit(described.rest_url).scheme in {"https", "http"}
    assert described.rest_url.count("/") == 2, "scheme and host alone"
    assert described.book.depth_max is None or described.book.depth_max > 0
    if described.book.checksum is not None:
        assert 0 <= described.book.checksum([(10, 1)], [(11, 2)]) < 2**32
        assert described.book.checksum([(10, 1)], [(11, 2)]) != described.book.checksum([], [])
    if described.book.checksum_text is not None:
        assert described.book.checksum is not None
        texts = [described.book.checksum_text(*level) for level in [(11, 2), (10, 1)]]
        wanted = described.book.checksum([(10, 1)], [(11, 2)])
        assert crc32("".join(texts).encode()) == wanted, "asks then bids"


@each_market
def test_ping_is_there_when_it_is_wanted(adapter: AdapterType, market: str) -> None:
    ping = adapter(market, {}).ping()
    assert (ping is not None) == (adapter.markets[market].limits.ping_interval_s is not None)
    assert ping is None or ping.decode()


@each_market
def test_instruments_are_read_from_rest(adapter: AdapterType, market: str) -> None:
    fixture = load(adapter, market)
    requests = adapter.instrument_requests(market)
    assert len(requests) == len(fixture.rest), "one body for each request"
    assert all(request.path.startswith("/") and request.weight > 0 for request in requests)
    read = read_list(adapter, market, fixture.rest).instruments
    assert read == fixture.instruments
    for one in read:
        assert (one.venue, one.market) == (adapter.venue, market)
        assert one.canonical == one.canonical.upper()
        assert one.canonical.startswith(f"{one.base}-{one.quote}".upper())
        assert Decimal(one.tick_size) % Decimal(1).scaleb(-one.price_exponent) == 0
        assert Decimal(one.lot_size) % Decimal(1).scaleb(-one.size_exponent) == 0


@each_market
def test_every_stream_has_a_name_of_its_own(adapter: AdapterType, market: str) -> None:
    """Two channels of a symbol may share a stream; two symbols only do where it has no symbol."""
    fixture = load(adapter, market)
    feed = adapter(market, fixture.table().symbols(adapter.venue, market))
    owner: dict[str, str] = {}
    for one in fixture.instruments:
        for channel in channels_of(adapter, market):
            name = feed.stream(channel, one.symbol)
            assert name
            assert name == feed.stream(channel, one.symbol)
            if ROW_CLASSES.of_channel(channel).is_standard or name != feed.stream(channel, "OTHER"):
                assert owner.setdefault(name, one.symbol) == one.symbol
        names = [feed.stream(channel, one.symbol) for channel in ("quotes", "book")]
        assert (names[0] == names[1]) == adapter.markets[market].book.quotes_from_book


@each_market
@pytest.mark.parametrize("verb", ["subscribe", "unsubscribe"])
@pytest.mark.parametrize("count", [1, 2, 450])
def test_requests_cover_all_streams_within_limits(
    adapter: AdapterType, market: str, verb: str, count: int
) -> None:
    symbols = [f"Q{number}-X/{number}" for number in range(count)]
    feed = adapter(market, {symbol: number for number, symbol in enumerate(symbols)})
    limits = adapter.markets[market].limits
    for endpoint in adapter.markets[market].endpoints:
        channels = sorted(endpoint.channels)
        streams = list(
            dict.fromkeys(feed.stream(c, symbol) for c in channels for symbol in symbols)
        )
        if limits.replaces_subscriptions and verb == "unsubscribe":
            assert list(feed.subscribe(streams))
            assert not re.search(rb"Q\d+-X", b"".join(feed.unsubscribe(streams)))
            continue
        frames = [frame.decode("utf-8").upper() for frame in getattr(feed, verb)(streams)]
        if verb == "unsubscribe" and not frames:
            continue  # by numbers that the venue gives; the fixture shows it
        named = [re.findall(r"Q(\d+)-X/\1(?!\d)", frame) for frame in frames]
        assert max(map(len, named)) <= limits.streams_per_subscribe
        images = 0  # which are asked for apart from the subscription
        if adapter.markets[market].book.snapshot is SnapshotSource.REQUEST and verb == "subscribe":
            images = count if "book" in channels else 0
        of_other = {feed.stream(channel, "OTHER") for channel in channels}
        shared = of_other.intersection(streams)  # they have no symbol
        own = len(streams) - len(shared)
        once = own + images
        # A book of two channels, images and changes, wants two requests.
        assert sum(map(len, named)) in {once, once + count * ("book" in channels)}
        if own:
            assert {int(number) for some in named for number in some} == set(range(count))
        assert max(map(len, frames)) < 1 << 16


@each_step
def test_each_line_of_the_fixture(adapter: AdapterType, market: str, index: int) -> None:
    fixture = load(adapter, market)
    step, got = fixture.steps[index], outcomes(adapter, market)[index]
    wanted = step.wanted
    match step.outcome:
        case "expect":
            assert (got.reason, got.control) == (None, None)
            assert got.rows == wanted
        case "rejected":
            assert got.reason == wanted
            assert got.payload == step.payload
            assert got.rows == [], "a frame is all or nothing"
            is_of_others = wanted in {UnknownMessage.reason, UnknownInstrument.reason}
            assert got.hole_of_frame == (step.verb == "frame" and not is_of_others)
        case "control":
            assert (got.reason, got.rows) == (None, [])
            for name in ("text", "reconnect"):
                if got.control and wanted.get(name) in {None, True}:
                    got.control.pop(name, None)
                    wanted = {key: value for key, value in wanted.items() if key != name}
            assert got.control == wanted
        case "sent":
            assert wanted is None or got.sent == wanted


@each_market
def test_rows_do_not_depend_on_where_a_batch_ends(adapter: AdapterType, market: str) -> None:
    """All frames sealed together give the rows that they gave one by one."""
    fixture = load(adapter, market)
    one_by_one = [row for got in outcomes(adapter, market) for row in got.rows]
    connection = Connection(fixture)
    for step in fixture.steps:
        connection.do(step, seal=False)
    sealed = connection.buffer.seal(connection.table)
    together = [row for row in rows_of(sealed, connection.table) if row["kind"] != "hole"]
    assert together == by_kind([row for row in one_by_one if row["kind"] != "hole"])
    rejected = [got.payload for got in outcomes(adapter, market) if got.reason]
    assert sorted(one.payload for one in sealed.rejected) == sorted(rejected)


@each_market
def test_the_ledger_of_frames_balances(adapter: AdapterType, market: str) -> None:
    fixture = load(adapter, market)
    connection = Connection(fixture)
    for step in fixture.steps:
        connection.do(step)
    counts = connection.counts
    wanted = [step for step in fixture.steps if step.verb == "frame"]
    filtered = [step for step in wanted if step.outcome == "control" and "filtered" in step.wanted]
    controls = [step for step in wanted if step.outcome == "control" and step not in filtered]
    assert counts.frames == len(wanted)
    assert counts.control == len(controls)
    assert counts.filtered + counts.duplicate == len(filtered)
    assert counts.pending + counts.rejected == len(wanted) - len(controls) - len(filtered)
    assert counts.unaccounted == 0


@each_market
def test_the_fixture_shows_what_every_venue_has(adapter: AdapterType, market: str) -> None:
    fixture = load(adapter, market)
    rows = [row for step in fixture.steps if step.outcome == "expect" for row in step.wanted]
    controls = {
        name
        for step in fixture.steps
        if step.outcome == "control"
        for name in step.wanted
        if name in {"ack", "refused", "filtered", "notice", "reply", "reconnect"}
    }
    updates = [row for row in rows if row["kind"] == "update"]
    assert {row["side"] for row in rows if row["kind"] == "trade"} >= {"bid", "ask"}
    for row_class in map(ROW_CLASSES.of_channel, channels_of(adapter, market)):
        of_class = [row for row in rows if row["kind"] == row_class.kind_name]
        assert of_class or row_class.is_standard, f"a row of {row_class.channel}"
        if row_class is RowClass.LIQUIDATION:
            assert {row["position"] for row in of_class} >= {"long", "short"}
        if row_class is RowClass.ORDER:
            assert {row["side"] for row in of_class} >= {"buy", "sell"}
    assert adapter.markets[market].book.quotes_from_book != any(r["kind"] == "quote" for r in rows)
    assert any("SNAPSHOT" in row["flags"] for row in updates), "a book snapshot"
    if not adapter.markets[market].book.images_only:
        sizes = [size for row in updates for _, size in (*row["bids"], *row["asks"])]
        assert any("SNAPSHOT" not in row["flags"] for row in updates), "a book update"
        assert 0 in sizes, "removal"
    acks = getattr(adapter, "acks", Acks.ANSWERED)
    assert {"refused"} <= controls
    assert "ack" in controls or acks is not Acks.ANSWERED
    assert {step.wanted for step in fixture.steps if step.outcome == "rejected"} >= {
        "unknown_message",
        "unknown_instrument",
        "bad_number",
    }


@each_market
def test_times_are_plausible(adapter: AdapterType, market: str) -> None:
    """ns since the epoch, between the first crypto exchange and the end of int64's century."""
    for got in outcomes(adapter, market):
        for row in got.rows:
            time = row.get("ts_event")
            assert time is None or 1_262_304_000 * 10**9 < time < 4_102_444_800 * 10**9


@each_market
def test_rest_snapshots_are_there_where_the_rule_wants_them(
    adapter: AdapterType, market: str
) -> None:
    fixture = load(adapter, market)
    symbol = fixture.instruments[0].symbol
    feed = adapter(market, fixture.table().symbols(adapter.venue, market))
    request = feed.snapshot_request(symbol)
    source = adapter.markets[market].book.snapshot
    by_rest = source in {SnapshotSource.REST, SnapshotSource.EITHER}
    assert (request is not None) == by_rest
    assert by_rest == any(step.verb == "snapshot" for step in fixture.steps)
    if request is not None:
        assert request.path.startswith("/")
        assert any(symbol in value for value in (*request.query.values(), request.path))


@each_market
def test_a_new_revision_of_an_instrument_is_followed(adapter: AdapterType, market: str) -> None:
    """Numbers come from the live mapping: after a metadata change rows carry the new one."""
    fixture = load(adapter, market)
    connection = Connection(fixture)
    first = next(
        step for step in fixture.steps if step.verb == "frame" and step.outcome == "expect"
    )
    for step in fixture.steps[: fixture.steps.index(first)]:
        connection.do(step)
    before = renumbered(connection.table)
    connection.do(first, seal=False)
    sealed = connection.buffer.seal(connection.table)
    numbers = {
        int(n)
        for rows in (sealed.trades, sealed.quotes, sealed.updates)
        for n in rows["instrument"]
    }
    assert numbers
    assert min(numbers) >= before


def renumbered(table: InstrumentTable) -> int:
    """Give every instrument a new revision; return the first new number."""
    before = len(table)
    for one in list(table):
        table.add(replace(one, price_exponent=one.price_exponent + 1))
    return before


def test_fixture_rows_are_compared_as_decimals() -> None:
    row = {"kind": "update", "symbol": "X", "ts_event": None, "bids": [["1.10", "2"]], "asks": []}
    assert normal(row)["bids"] == [[Decimal("1.1"), Decimal(2)]]


def test_a_wrong_fixture_is_noticed() -> None:
    fixture: Fixture = load(*next(markets()))
    index, step = next(
        (index, step) for index, step in enumerate(fixture.steps) if step.outcome == "expect"
    )
    got = outcomes(fixture.adapter, fixture.market)[index]
    wrong = [dict(row) for row in step.wanted]
    wrong[0]["ts_event"] = 1
    assert got.rows != wrong
