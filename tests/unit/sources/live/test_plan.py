"""ingestor.sources.live.plan: what goes on which connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import BookRule, Continuity, Endpoint, FeedAdapter, Limits, Market
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.plan import Plan, Route, Wanted, make_plan, shard_of
from ingestor.sources.live.replan import shard_part


class Venue:
    """Just enough of an adapter: names of streams and limits."""

    venue: ClassVar[str] = "acme"
    markets: ClassVar = {
        "spot": Market(
            endpoints=(
                Endpoint("wss://acme.example/public?v=2", frozenset({"quotes", "book"})),
                Endpoint("wss://acme.example/market", frozenset({"trades"})),
            ),
            rest_url="https://api.acme.example",
            limits=Limits(streams_per_connection=4),
            book=BookRule(Continuity.NONE, verify_with_quotes=True),
        ),
        "heavy": Market(
            endpoints=(Endpoint("wss://heavy.acme.example"),),
            rest_url="https://api.acme.example",
            limits=Limits(streams_per_connection=40, streams_of_channel={"book": 3}),
            book=BookRule(Continuity.NONE),
        ),
        "one": Market(
            endpoints=(Endpoint("wss://one.acme.example"),),
            rest_url="https://api.acme.example",
            limits=Limits(streams_per_connection=1),
            book=BookRule(Continuity.NONE),
        ),
    }

    def __init__(self, market: str, symbols: object) -> None:
        self.market = market

    def stream(self, channel: str, symbol: str) -> str:
        return f"{'book' if channel == 'quotes' and symbol == 'SHARED' else channel}.{symbol}"


VENUE = cast("type[FeedAdapter]", Venue)  # as much of one as plans ask for


def table(symbols: Sequence[str], market: str = "spot") -> InstrumentTable:
    return InstrumentTable(
        instrument("acme", market, symbol, symbol, symbol, "USD", "0.01", "0.1")
        for symbol in symbols
    )


def plan(
    symbols: Sequence[str], channels: Sequence[str], market: str = "spot", **route: Any
) -> Plan:
    wanted = Wanted(VENUE, market, range(len(symbols)), channels, Route(**route))
    return make_plan([wanted], table(symbols, market))


def streams(planned: Plan) -> list[list[str]]:
    return [one.streams for one in planned]


def test_an_instrument_stays_together_and_connections_are_even() -> None:
    planned = plan(["C", "A", "B"], ["book", "quotes"])
    assert streams(planned) == [
        ["book.A", "quotes.A", "book.B", "quotes.B"],
        ["book.C", "quotes.C"],
    ]
    assert [len(one) for one in streams(plan("ABCDE", ["book"]))] == [3, 2]


def test_heavy_channels_have_a_limit_of_their_own() -> None:
    symbols = [f"S{number}" for number in range(8)]
    planned = plan(symbols, ["trades", "book"], "heavy")
    books = [[one for one in names if one.startswith("book")] for names in streams(planned)]
    assert [len(names) for names in books] == [3, 3, 2]
    assert sum(map(len, streams(planned))) == 16
    assert len(plan(symbols, ["trades", "quotes"], "heavy")) == 1


def test_quotes_prove_books_only_where_they_are_subscribed_to() -> None:
    asked = {"book": False, "trades": False, "quotes": True}
    for channel, proves in asked.items():
        rules = plan("A", ["book", channel]).book_rules()
        assert {key: rule.verify_with_quotes for key, rule in rules.items()} == {
            ("acme", "spot", ""): proves,
            ("acme", "spot", "A"): proves,
        }


def test_endpoints_carry_their_channels_alone() -> None:
    planned = plan(["A"], ["trades", "book"])
    assert [(one.url, one.streams) for one in planned] == [
        ("wss://acme.example/public?v=2", ["book.A"]),
        ("wss://acme.example/market", ["trades.A"]),
    ]


def test_a_shared_stream_counts_once() -> None:
    (one,) = plan(["A", "SHARED"], ["book", "quotes"], streams_per_connection=3)
    assert one.streams == ["book.A", "quotes.A", "book.SHARED"]
    assert [sub.channel for sub in one.subscriptions] == ["book", "quotes"] * 2


def test_an_instrument_too_large_for_a_connection_is_cut() -> None:
    assert streams(plan(["A"], ["book", "trades"], "one")) == [["book.A"], ["trades.A"]]


def test_the_limit_can_be_lowered_but_not_raised() -> None:
    assert len(plan("ABCD", ["book"], streams_per_connection=1)) == 4
    assert len(plan("ABCD", ["book"], streams_per_connection=1_000)) == 1


def test_every_connection_says_why() -> None:
    first, second = plan("ABCDE", ["book"])
    assert first.why == (
        "3 of 5 streams of 5 instruments (book), connection 1 of 2: "
        "the venue allows 4 streams on a connection"
    )
    assert second.why.startswith("2 of 5 streams")
    (only,) = plan("A", ["book"], streams_per_connection=2)
    assert "1 instrument " in only.why
    assert "configured: 2 streams" in only.why


def test_origins_and_source_addresses_take_turns() -> None:
    planned = plan(
        "ABC",
        ["book"],
        origins=("ws://127.0.0.1:1", "ws://127.0.0.2:2"),
        rest_origin="http://127.0.0.1:3",
        source_addresses=("127.0.0.8", "127.0.0.9"),
        streams_per_connection=1,
    )
    assert [one.url for one in planned] == [
        "ws://127.0.0.1:1/public?v=2",
        "ws://127.0.0.2:2/public?v=2",
        "ws://127.0.0.1:1/public?v=2",
    ]
    assert [one.source_address for one in planned] == ["127.0.0.8", "127.0.0.9", "127.0.0.8"]
    assert {one.rest_url for one in planned} == {"http://127.0.0.1:3"}


def test_wishes_that_overlap_are_taken_once() -> None:
    wishes = [
        Wanted(VENUE, "spot", [0, 1, 1], ["book", "book"]),
        Wanted(VENUE, "spot", [1, 2], ["book", "quotes"]),
    ]
    taken = [
        (sub.symbol, sub.channel)
        for one in make_plan(wishes, table("ABC"))
        for sub in one.subscriptions
    ]
    assert sorted(taken) == sorted(set(taken))
    assert len(taken) == 5
    assert len(make_plan([wishes[0], wishes[0]], table("ABC"))) == 1


def test_unknown_market_and_channel() -> None:
    with pytest.raises(ConfigError, match="no market 'swap'; it has spot, heavy, one"):
        make_plan([Wanted(VENUE, "swap", [0], ["book"])], table("A"))
    with pytest.raises(ConfigError, match="no channel 'candles'; it has book, quotes, trades"):
        make_plan([Wanted(VENUE, "spot", [0], ["candles"])], table("A"))


@given(count=st.integers(1, 60), most=st.integers(1, 9), workers=st.integers(1, 5))
def test_every_stream_is_planned_once_and_shares_add_up(
    count: int, most: int, workers: int
) -> None:
    symbols = [f"S{number:02}" for number in range(count)]
    planned = plan(symbols, ["book", "trades", "quotes"], streams_per_connection=most)
    everything = sorted(name for one in planned for name in one.streams)
    assert everything == sorted(
        f"{channel}.{symbol}" for symbol in symbols for channel in ("book", "trades", "quotes")
    )
    assert all(len(one.streams) <= min(most, 4) for one in planned)
    assert [one.number for one in planned] == list(range(len(planned)))
    assert planned == plan(symbols, ["book", "trades", "quotes"], streams_per_connection=most)

    parts = [planned.share(index, workers) for index in range(workers)]
    numbers = [one.number for part in parts for one in part]
    assert sorted(numbers) == list(range(len(planned)))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for url in {one.url for one in planned}:
        of_endpoint = [sum(one.url == url for one in part) for part in parts]
        assert max(of_endpoint) - min(of_endpoint) <= 1
    assert {part.workers for part in parts} == {workers}


@given(
    count=st.integers(0, 60),
    most=st.integers(1, 4),
    shards=st.integers(1, 9),
    workers=st.integers(1, 4),
)
def test_shards_and_their_workers_run_each_connection_once(
    count: int, most: int, shards: int, workers: int
) -> None:
    symbols = [f"S{number:02}" for number in range(count)]
    planned = plan(symbols, ["book", "trades"], streams_per_connection=most)
    parts = [
        shard_part(planned, shard, shards).share(worker, workers)
        for shard in range(shards)
        for worker in range(workers)
    ]
    assert sorted(streams_of(*parts)) == sorted(streams_of(planned))
    assert {part.workers for part in parts} == {workers}  # shards have addresses of their own
    for symbol in ["NEW1", "NEW2", *symbols]:
        assert sum(part.is_mine(symbol) for part in parts) == 1


def streams_of(*plans: Plan) -> list[tuple[str, str, int]]:
    """Every stream, its channel and its line."""
    return [
        (one.symbol, one.channel, planned.line)
        for part in plans
        for planned in part
        for one in planned.subscriptions
    ]


@given(
    symbols=st.sets(st.integers(0, 200), min_size=1, max_size=60),
    change=st.sets(st.integers(0, 200), max_size=20),
    shards=st.integers(1, 6),
    lines=st.integers(1, 2),
)
def test_a_change_of_the_plan_moves_no_stream_to_another_shard(
    symbols: set[int], change: set[int], shards: int, lines: int
) -> None:
    """Nor does a process that knows other symbols, since its list is older."""
    before, after = (
        plan([f"S{number:03}" for number in sorted(chosen)], ["trades"], lines=lines)
        for chosen in (symbols, symbols ^ change)
    )
    both = {*streams_of(before)} & {*streams_of(after)}
    for shard in range(shards):
        mine, later = ({*streams_of(shard_part(one, shard, shards))} for one in (before, after))
        assert mine & both == later & both
    counts = [len(shard_part(before, shard, shards)) for shard in range(shards)]
    assert sum(counts) <= len(before) + lines * shards


def test_another_shard_takes_from_the_others_alone() -> None:
    keys = [f"acme:spot:S{number}" for number in range(600)]
    before, after = ([shard_of(key, shards) for key in keys] for shards in (3, 4))
    assert all(new in (old, 3) for old, new in zip(before, after, strict=True))
    assert all(150 < before.count(shard) < 250 for shard in range(3))


def test_the_digest_tells_plans_apart() -> None:
    whole = plan("ABC", ["book"])
    assert whole.digest == plan("ABC", ["book"]).digest
    others = [plan("ABD", ["book"]), plan("AB", ["book"]), plan("ABC", ["book", "trades"])]
    assert len({whole.digest, *(one.digest for one in others)}) == 4


def test_no_such_part() -> None:
    with pytest.raises(ValueError, match="no part 2 among 2"):
        plan("A", ["book"]).share(2, 2)
