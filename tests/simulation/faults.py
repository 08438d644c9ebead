"""What goes wrong in a run, drawn from a seed: one fault after another, some of them at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Final

from ingestor.model.errors import PeerClosed
from tests.fakes.broker import NOT_ENOUGH_AFTER_APPEND, NOT_LEADER, UNKNOWN_PRODUCER
from tests.simulation.broker import Broker
from tests.simulation.market import Market
from tests.simulation.venue import Link, Venue
from tests.simulation.virtual import Time

_LISTED_MIN: Final = 4
_STEPS_S: Final = (-600, -30, -1, 1, 30, 3_600)


class Faults:
    """Runs faults. happened: how many of each; is_over: none is in force any more."""

    def __init__(
        self,
        venue: Venue,
        broker: Broker,
        time: Time,
        note: Callable[..., None],
        random: Random,
    ) -> None:
        """note: called with what happens."""
        self._note = note
        self._venue = venue
        self._broker = broker
        self._time = time
        self._random = random
        self.happened: Counter[str] = Counter()
        self._halts_s: list[float] = []  # how long the longest last
        self._lasting: set[asyncio.Task[None]] = set()
        self._kinds: dict[str, tuple[int, Callable[[], Coroutine[None, None, None]]]] = {
            "cut": (4, self._cut),
            "cut all": (1, self._cut_all),
            "stall": (4, self._stall),
            "mute": (2, self._mute),
            "reconnect": (1, self._reconnect),
            "refuse": (2, self._refuse),
            "drop": (5, self._spoil_with("drop")),
            "malform": (2, self._spoil_with("malform")),
            "repeat": (2, self._spoil_with("repeat")),
            "halt": (5, self._halt),
            "deaf": (1, self._deaf),
            "list": (2, self._list),
            "delist": (2, self._delist),
            "relist": (2, self._relist),
            "hide list": (1, self._hide_list),
            "tick": (3, self._tick),
            "pause": (4, self._pause),
            "lose": (2, self._lose),
            "refuse rows": (2, self._refuse_rows),
            "clock": (3, self._clock),
        }

    def add(self, name: str, weight: int, fault: Callable[[], Coroutine[None, None, None]]) -> None:
        """Let something else go wrong, too."""
        self._kinds[name] = weight, fault

    def forget(self, *names: str) -> None:
        """Let some things not go wrong here."""
        for name in names:
            del self._kinds[name]

    async def run(self, until_s: float, between_s: float) -> None:
        """Let things go wrong, and wait until all of it is over.

        Args:
            until_s: when the last fault begins at the latest.
            between_s: from one fault to the next, on average.
        """
        self._halts_s = [10.0, 60.0, min(600.0, until_s)]
        names = list(self._kinds)
        weights = [weight for weight, _ in self._kinds.values()]
        while True:
            await asyncio.sleep(self._random.expovariate(1 / between_s))
            if self._time.now_s >= until_s:
                break
            name = self._random.choices(names, weights)[0]
            self.happened[name] += 1
            self._note(name)
            task = asyncio.create_task(self._kinds[name][1](), name=name)
            self._lasting.add(task)
            task.add_done_callback(self._lasting.discard)
        if self._lasting:
            await asyncio.gather(*self._lasting)
        self._venue.spoil.clear()
        for link in list(self._venue.links):
            if link.is_mute:
                self._close(link)

    # Connections

    def _link(self) -> Link | None:
        links = list(self._venue.links)
        return self._random.choice(links) if links else None

    def _close(self, link: Link) -> None:
        code = self._random.choice((1000, 1001, 1006, 1012, 4000))
        self._venue.close(link, PeerClosed(link.url, code, "fault"))

    async def _cut(self) -> None:
        link = self._link()
        if link is not None:
            self._note("cuts", sorted(link.streams))
            self._close(link)

    async def _cut_all(self) -> None:
        for link in list(self._venue.links):
            self._close(link)

    async def _stall(self) -> None:
        link = self._link()
        if link is not None:
            self._note("stalls", sorted(link.streams))
            link.stall(is_stalled=True)
            await asyncio.sleep(self._random.uniform(0.5, 45.0))
            link.stall(is_stalled=False)

    async def _mute(self) -> None:
        link = self._link()
        if link is not None:
            self._note("mutes", sorted(link.streams))
            link.is_mute = True

    async def _reconnect(self) -> None:
        link = self._link()
        if link is not None:
            self._note("wants gone", sorted(link.streams))
            if self._venue.farewell is not None:
                link.push([self._venue.farewell])
            await asyncio.sleep(30.0)
            if link.is_open:
                self._close(link)

    async def _refuse(self) -> None:
        self._venue.refusal = self._random.choice((0, 1, 429, 503, 403))
        duration_s = self._random.uniform(1.0, 30.0)
        self._venue.refuse_until_s = asyncio.get_running_loop().time() + duration_s
        await self._cut()

    async def _deaf(self) -> None:
        self._venue.is_deaf = True
        await self._cut()
        await asyncio.sleep(self._random.uniform(1.0, 40.0))
        self._venue.is_deaf = False

    def _spoil_with(self, what: str) -> Callable[[], Coroutine[None, None, None]]:
        async def spoil() -> None:
            self._venue.spoil.append(what)

        return spoil

    # Markets

    def _market(self, *, is_listed: bool = True) -> Market | None:
        found = [one for one in self._venue.markets.values() if one.is_listed is is_listed]
        if (is_listed and len(found) <= _LISTED_MIN) or not found:
            return None
        return self._random.choice(found)

    async def _halt(self) -> None:
        market = self._market()
        if market is None or market.is_halted:
            return
        self._note("halts", market.symbol)
        market.is_halted = True
        market.is_said_to_be_halted = self._random.random() < 0.5
        await asyncio.sleep(self._random.choice(self._halts_s) * self._random.random())
        market.is_halted = market.is_said_to_be_halted = False
        market.resumed_s = asyncio.get_running_loop().time()

    async def _list(self) -> None:
        self._venue.list_symbol()

    async def _delist(self) -> None:
        market = self._market()
        if market is not None:
            self._note("delists", market.symbol)
            market.is_listed = False

    async def _relist(self) -> None:
        market = self._market(is_listed=False)
        if market is not None:
            self._note("lists again", market.symbol)
            market.is_listed = True
            market.resumed_s = asyncio.get_running_loop().time()

    async def _hide_list(self) -> None:
        self._venue.hides_list = True
        await asyncio.sleep(self._random.uniform(1.0, 60.0))
        self._venue.hides_list = False

    async def _tick(self) -> None:
        market = self._market()
        if market is None:
            return
        decimals = self._random.choice([one for one in (1, 2, 3, 4) if one != market.decimals])
        self._note("ticks", market.symbol, market.decimals, decimals)
        self._venue.set_decimals(market, decimals)

    # The rest

    async def _pause(self) -> None:
        self._broker.pause()
        await asyncio.sleep(self._random.uniform(0.5, 60.0))
        self._broker.resume()

    async def _lose(self) -> None:
        """Break the broker's connection, some of whose requests were taken."""
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        self._broker.lose(taken=self._random.randrange(3))

    async def _refuse_rows(self) -> None:
        codes = (NOT_LEADER, NOT_ENOUGH_AFTER_APPEND, UNKNOWN_PRODUCER)
        self._broker.codes.append(self._random.choice(codes))

    async def _clock(self) -> None:
        self._time.step(self._random.choice(_STEPS_S))
