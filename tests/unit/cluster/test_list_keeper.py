"""What instrument lists change in a plan. tests/kafka/cluster has a whole cluster that follows."""

from __future__ import annotations

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import InstrumentList
from ingestor.cluster.list_keeper import ListKeeper, keep_doubted, streams_of
from ingestor.config.model import Config
from ingestor.model.errors import TransportError
from ingestor.sources.live.plan import Plan
from tests.unit.cluster.test_proposal import config, planned

SPOT = ("simulated", "spot")


class NoLists:
    """A source whose venues don't answer."""

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList:
        raise TransportError(f"{adapter.venue} {market} at {rest_url}", "no answer")

    async def refresh(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList | None:
        assert (adapter.venue, market, rest_url) == (*SPOT, None)
        return None


def symbols(plan: Plan) -> list[str]:
    return sorted(symbol for _, _, symbol, _ in streams_of(plan))


def test_a_symbol_goes_when_two_lists_in_turn_lack_it() -> None:
    running, fewer = planned("A", "B", "C").plan, planned("A", "B").plan
    kept, doubted = keep_doubted(running, fewer, (), frozenset())
    assert symbols(kept) == ["A", "B", "C"]
    assert doubted == {(*SPOT, "C", "trades")}
    gone, still = keep_doubted(running, fewer, (), doubted)
    assert symbols(gone) == ["A", "B"]
    assert still == doubted
    back, none = keep_doubted(running, running, (), doubted)
    assert (symbols(back), none) == (["A", "B", "C"], frozenset())


def test_a_list_that_cannot_be_had_ends_nothing() -> None:
    running = planned("A", "B").plan
    doubted = frozenset(streams_of(running))
    kept, left = keep_doubted(running, Plan(()), [SPOT], doubted)
    assert (symbols(kept), left) == (["A", "B"], frozenset())


async def test_without_feeds_there_is_nothing_to_keep() -> None:
    await ListKeeper(Config(), NoLists(), lambda: True).run()


def test_lists_that_are_doubted_are_read_again_soon() -> None:
    keeper = ListKeeper(config(), NoLists(), lambda: True)
    assert keeper._pause_s() > 3_600
    keeper._unread.add(SPOT)
    assert keeper._pause_s() < 70


async def test_a_list_that_cannot_be_had_is_remembered() -> None:
    keeper = ListKeeper(config(), NoLists(), lambda: True)
    assert keeper._planner is not None
    [source] = keeper._planner.sources
    await keeper._read(keeper._planner, source)
    assert keeper._unread == {SPOT}
