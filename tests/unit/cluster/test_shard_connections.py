"""Connections of shards on an ingestor: held, published, changed, closed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pytest

from feeds.simulated import Simulated
from ingestor.app.ingestor import Ingestor
from ingestor.app.planning import Planned
from ingestor.cluster.records import PLAN_KEY, closing_record, connection_record, key_of
from ingestor.cluster.shard_connections import ShardConnections
from ingestor.config.model import Config
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind
from ingestor.sources.live.plan import Plan, Route, Wanted, make_plan


def records(
    *groups: Sequence[str], tick: str = "0.01", venue: str = "simulated"
) -> dict[bytes, bytes]:
    """One connection of trades for each group of symbols."""
    found = {}
    for number, symbols in enumerate(groups):
        table = InstrumentTable(
            instrument("simulated", "spot", symbol, symbol, symbol, "USD", tick, "1")
            for symbol in symbols
        )
        wish = Wanted(Simulated, "spot", range(len(symbols)), ["trades"], Route())
        [planned] = make_plan([wish], table)
        fields = orjson.loads(connection_record(planned, table))
        found[key_of(number)] = orjson.dumps(fields | {"number": number, "venue": venue})
    return found


class World:
    def __init__(self) -> None:
        config = Config.model_validate({"http": {"enabled": False}})
        self.ingestor = Ingestor(config, Planned(InstrumentTable(), Plan(())), life="g.m.s")
        assert self.ingestor.gate is not None
        self.gate = self.ingestor.gate
        self.connections = ShardConnections(self.ingestor, self.gate, {})

    def write(self, shard: int, found: dict[bytes, bytes], revision: int) -> None:
        for key, value in found.items():
            self.connections.record(shard, key, value)
        self.connections.record(shard, PLAN_KEY, closing_record(revision, found))

    def rows(self) -> list[tuple[str, int, int]]:
        """Return kind, instrument and cause of what waits for Kafka."""
        assert self.ingestor.sink is not None
        found = []
        for queue in self.ingestor.sink.queue.partition_queues.values():
            rows = queue.all()[0]
            found += list(zip(rows["kind"], rows["instrument"], rows["side"], strict=True))
        return sorted((Kind(kind).name, int(number), int(side)) for kind, number, side in found)

    def trade(self, number: int) -> None:
        rows = np.zeros(1, RowClass.TRADE.dtype)
        rows["instrument"], rows["kind"] = number, Kind.TRADE
        self.gate.submit(TickBatch(RowClass.TRADE, rows, self.ingestor.planned.table), 0)

    @property
    def numbers(self) -> list[int]:
        return [one.number for one in self.ingestor.planned.plan]


@pytest.fixture
def world() -> World:
    return World()


def test_a_shard_is_opened_once_its_plan_was_read_and_held_until_it_is_ours(world: World) -> None:
    world.connections.begin([2])
    world.connections.open(2)
    assert world.connections.follow(2).revision == 0
    world.write(2, records(["A", "B"], ["C"]), 4)
    assert world.connections.follow(2).revision == 0  # more may follow
    world.connections.at_end(2)
    assert world.connections.follow(2).revision == 4
    assert world.numbers == [0, 1]
    assert not world.connections.stands(2)
    world.trade(0)
    assert world.rows() == []
    world.connections.publish(2, gap=False, takeover=False)
    assert [one[0] for one in world.rows()] == ["TRADE"]


def test_a_gap_stands_before_what_was_held(world: World) -> None:
    world.connections.begin([2])
    world.write(2, records(["A", "B"]), 1)
    world.connections.at_end(2)
    world.connections.open(2)
    world.connections.follow(2)
    world.trade(0)
    world.connections.publish(2, gap=True, takeover=True)
    assert [one for one in world.rows() if one[0] == "GAP"] == [
        ("GAP", 0, Cause.TAKEOVER),
        ("GAP", 1, Cause.TAKEOVER),
    ]
    assert world.ingestor.pipeline.metrics.total("declared") == 2


def test_a_shard_that_is_ours_before_its_plan_was_read_begins_with_its_gap(world: World) -> None:
    world.connections.begin([2])
    world.connections.open(2)
    world.connections.publish(2, gap=True, takeover=False)
    world.write(2, records(["A"]), 1)
    world.connections.at_end(2)
    world.connections.follow(2)
    assert world.rows() == [("GAP", 0, Cause.RESTART)]
    world.trade(0)
    assert len(world.rows()) == 2


def test_a_new_revision_changes_what_differs(world: World) -> None:
    world.connections.begin([2])
    first = records(["A", "B"], ["C"])
    world.write(2, first, 1)
    world.connections.at_end(2)
    world.connections.open(2)
    world.connections.follow(2)
    world.connections.publish(2, gap=False, takeover=False)
    second = records(["A", "D"])
    world.connections.record(2, key_of(1), None)
    world.write(2, second, 2)
    assert world.connections.follow(2).revision == 2
    [planned] = world.ingestor.planned.plan
    assert [one.symbol for one in planned.subscriptions] == ["A", "D"]


def test_a_new_revision_of_an_instrument_is_followed(world: World) -> None:
    world.connections.begin([2])
    world.write(2, records(["A"]), 1)
    world.connections.at_end(2)
    world.connections.open(2)
    world.connections.follow(2)
    world.write(2, records(["A"], tick="0.001"), 2)
    world.connections.follow(2)
    [planned] = world.ingestor.planned.plan
    table = world.ingestor.planned.table
    assert table[planned.subscriptions[0].instrument].price_exponent == 3
    world.trade(planned.subscriptions[0].instrument)
    assert world.gate.rows == 1


def test_a_plan_that_cannot_be_run_leaves_the_one_before(world: World) -> None:
    world.connections.begin([2])
    world.write(2, records(["A"]), 1)
    world.connections.at_end(2)
    world.connections.open(2)
    world.connections.follow(2)
    world.write(2, records(["A"], venue="nowhere"), 2)
    outcome = world.connections.follow(2)
    assert outcome.revision == 2
    assert "nowhere" in outcome.problem
    assert world.numbers == [0]


def test_a_closed_shard_is_forgotten(world: World) -> None:
    world.connections.begin([2, 3])
    for shard in (2, 3):
        found = records(["A"] if shard == 2 else ["B"])
        if shard == 3:
            [value] = found.values()
            fields = orjson.loads(value) | {"number": 9}
            found = {key_of(9): orjson.dumps(fields)}
        world.write(shard, found, 1)
        world.connections.at_end(shard)
        world.connections.open(shard)
        world.connections.follow(shard)
    world.trade(0)
    world.connections.close(2)
    assert world.numbers == [9]
    assert world.gate.rows == 0
    assert world.ingestor.pipeline.metrics.total("fenced") == 1
    assert world.connections.shards == {3: 1}
