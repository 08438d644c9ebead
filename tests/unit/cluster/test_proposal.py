"""The next revision: what it changes, what stays, and which limits would break."""

from __future__ import annotations

from dataclasses import replace

import pytest

from feeds.simulated import Simulated
from ingestor.app.planning import Planned
from ingestor.cluster.claims import Claim, ClaimState, ClaimTable, Life
from ingestor.cluster.proposal import Proposal, feeds_digest, propose, running_plan
from ingestor.cluster.records import ShardLog
from ingestor.cluster.report import report_of, report_text
from ingestor.cluster.store import Cluster
from ingestor.config.model import Config
from ingestor.model.errors import ClusterError
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.plan import Route, Wanted, make_plan

A, B = Life("a", "01"), Life("b", "02")


def planned(*symbols: str, each: int = 2) -> Planned:
    table = InstrumentTable(
        instrument("simulated", "spot", symbol, symbol, symbol, "USD", "0.01", "1")
        for symbol in symbols
    )
    route = Route(streams_per_connection=each)
    wish = Wanted(Simulated, "spot", range(len(symbols)), ["trades"], route)
    return Planned(table, make_plan([wish], table))


def config(**cluster: object) -> Config:
    return Config.model_validate(
        {
            "cluster": cluster,
            "feeds": [
                {
                    "venue": "simulated",
                    "symbols": ["*"],
                    "channels": ["trades"],
                    "streams_per_connection": 2,
                }
            ],
        }
    )


def empty(shards: int) -> Cluster:
    return Cluster("prod", {shard: ShardLog() for shard in range(shards)}, ClaimTable())


def follow(cluster: Cluster, proposal: Proposal) -> None:
    for shard, records in proposal.changes.items():
        for place, (key, value) in enumerate(records, start=1):
            assert cluster.shards[shard].take(key, value) == (place == len(records))


def streams(cluster: Cluster) -> list[str]:
    import orjson

    values = [value for log in cluster.shards.values() for value in log.records.values()]
    return sorted(
        stream for value in values for _, _, stream in orjson.loads(value)["subscriptions"]
    )


def test_each_stream_is_in_one_shard_and_stays_there() -> None:
    cluster = empty(4)
    symbols = [f"S{number}" for number in range(10)]
    first = propose(planned(*symbols), cluster, config(), {})
    assert (first.revision, first.connections, first.added) == (1, 5, 5)
    follow(cluster, first)
    all_streams = streams(cluster)
    assert len(set(all_streams)) == len(all_streams) == 10
    assert propose(planned(*symbols), cluster, config(), {}).is_empty

    second = propose(planned(*symbols[1:], "NEW", "NEWER"), cluster, config(), {})
    assert (second.added, second.removed, second.moved) == (1, 0, 0)
    follow(cluster, second)
    assert len(streams(cluster)) == 11


def test_metadata_that_changed_are_a_revision_and_move_nothing() -> None:
    cluster = empty(4)
    symbols = [f"S{number}" for number in range(10)]
    follow(cluster, propose(planned(*symbols), cluster, config(), {}))
    revised = planned(*symbols)
    number = revised.table.symbols("simulated", "spot")["S3"]
    plain = replace(revised.table[number], tick_size="0.001")
    finer = InstrumentTable([plain, *(one for one in revised.table if one.symbol != "S3")])
    wish = Wanted(Simulated, "spot", range(10), ["trades"], Route(streams_per_connection=2))
    second = propose(Planned(finer, make_plan([wish], finer)), cluster, config(), {})
    assert (second.added, second.removed, second.changed, second.moved) == (0, 0, 1, 0)
    follow(cluster, second)
    assert propose(Planned(finer, make_plan([wish], finer)), cluster, config(), {}).is_empty
    table = InstrumentTable()
    running_plan(cluster, table, {})
    found = table[table.symbols("simulated", "spot")["S3"]]
    assert (found.tick_size, found.revision) == ("0.001", plain.revision + 1)


def test_the_plan_says_of_which_feeds_it_was_made() -> None:
    cluster = empty(2)
    assert cluster.config == ""
    follow(cluster, propose(planned("A", "B"), cluster, config(), {}))
    assert cluster.config == feeds_digest(config(name="other", workers=9))
    fields = config().model_dump()
    own = Config.model_validate(
        {"feeds": [{**fields["feeds"][0], "source_addresses": ["127.0.0.1"]}]}
    )
    assert feeds_digest(own) == cluster.config
    other = Config.model_validate({"feeds": [{**fields["feeds"][0], "symbols": ["A"]}]})
    assert feeds_digest(other) != cluster.config


def test_a_hot_instrument_gets_a_connection_of_its_own() -> None:
    cluster = empty(2)
    follow(
        cluster,
        propose(planned("A", "B", "C", "D", each=4), cluster, config(), {"simulated:spot:B": 90}),
    )
    sizes = [len(log.records) for log in cluster.shards.values()]
    assert sum(sizes) >= 2


def test_rebalance_packs_anew() -> None:
    cluster = empty(2)
    follow(cluster, propose(planned("A", "B", "C", "D", "E", "F", each=2), cluster, config(), {}))
    weights = {"simulated:spot:A": 50.0, "simulated:spot:C": 50.0, "simulated:spot:E": 1.0}
    kept = propose(planned("A", "B", "C", "D", "E", "F"), cluster, config(), weights)
    assert kept.moved == 0
    anew = propose(
        planned("A", "B", "C", "D", "E", "F"), cluster, config(), weights, rebalance=True
    )
    assert anew.busiest <= kept.busiest


def test_a_limit_that_would_break_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Simulated.markets["spot"]
    limited = replace(market, limits=replace(market.limits, connections_per_address=2))
    monkeypatch.setattr(Simulated, "markets", {"spot": limited})
    symbols = [f"S{number}" for number in range(8)]
    with pytest.raises(ClusterError, match="4 connections come to 4 at one address when one of 2"):
        propose(planned(*symbols), empty(2), config(workers=2), {})
    assert propose(planned(*symbols), empty(4), config(workers=3), {}).pools[0].per_address == 2


def test_a_report_joins_group_and_claims() -> None:
    cluster = empty(3)
    follow(cluster, propose(planned("S0", "S1", "S2"), cluster, config(), {}))
    cluster.claims.take(Claim(0, A, ClaimState.LIVE, 1), 7)
    cluster.claims.take(Claim(1, B, ClaimState.LIVE, 1), 8)
    cluster.claims.take(Claim(1, B, ClaimState.OFFERED, 1), 9)
    cluster.shards[2].take(b"9", b"half")
    found = report_of(cluster, {"a": [0, 1]})
    assert (found["not_live"], found["half_written"]) == ([1, 2], [2])
    text = report_text(found)
    assert "1 of 3 live" in text
    assert "b: 1 shards, given 0, not in the group" in text
    assert "shard 1 is offered by b" in text
    assert "shard 2 is unclaimed" in text
