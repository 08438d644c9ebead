"""A cluster in which anything may happen in any order: one publisher a shard, and all end live.

Where nobody dies, no order of steps leaves a hole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingestor.cluster.claims import Claim, ClaimTable, Life
from ingestor.cluster.packing import deal
from ingestor.cluster.shards import (
    Action,
    Drop,
    Fence,
    Open,
    Phase,
    Publish,
    Release,
    ShardMachine,
    Write,
)
from tests.effort import tried

SHARDS = 5
WORKERS_MAX = 4


@dataclass
class Worker:
    """One life: its machine, what waits to be told to it, and what waits to be done by it."""

    machine: ShardMachine
    events: list[tuple[str, frozenset[int]]] = field(default_factory=list)  # of the group
    read: int = 0  # claims of the log
    to_write: list[Claim] = field(default_factory=list)
    fences: list[Life] = field(default_factory=list)
    opens: list[int] = field(default_factory=list)
    drains: list[int] = field(default_factory=list)
    frozen: bool = False
    leaving: bool = False  # for good, once everything is given away
    revoking: frozenset[int] = frozenset()  # acknowledged once it is given away
    opened: set[int] = field(default_factory=set)  # connections that are there
    standing: set[int] = field(default_factory=set)  # those that bring rows

    def idle(self) -> bool:
        return not (self.events or self.to_write or self.fences or self.opens or self.drains)


class World:
    """The log of claims, the fences, and a coordinator that deals as KIP-848 does."""

    def __init__(self, *, asks_first: bool, calm: bool = False) -> None:
        """Create a world. calm: nobody dies, and nothing takes so long that anyone may think so."""
        self.calm = calm
        self.heirs: dict[int, set[str]] = {}  # who had the rows of a shard when it was released
        self.published: set[int] = set()
        self.now_s = 0.0
        self.log: list[Claim] = []
        self.fenced: set[Life] = set()
        self.workers: dict[str, Worker] = {}
        self.given: dict[int, str] = {}  # whose each shard is, until it acknowledges its going
        self.names = 0
        self.sessions = 0
        self.asks_first = asks_first

    # ------------------------------------------------------------------ the group

    def join(self, name: str = "") -> None:
        if not name:
            self.names += 1
            name = f"w{self.names}"
        self.sessions += 1
        life = Life(name, f"{self.sessions:02x}")
        machine = ShardMachine(
            life,
            lambda: self.now_s,
            asks_first=self.asks_first,
            handover_parallel=1 + self.sessions % 3,
        )
        self.workers[name] = Worker(machine)
        self.rebalance()

    def expel(self, name: str) -> None:
        """The coordinator takes a member for dead. It is told so if it lives."""
        shards = frozenset(shard for shard, owner in self.given.items() if owner == name)
        for shard in shards:
            del self.given[shard]
        worker = self.workers.get(name)
        if worker is not None:
            worker.events = [("lost", shards)]
            worker.revoking = frozenset()
        self.rebalance(without=name)

    def rebalance(self, without: str = "") -> None:
        members = sorted(
            name for name, one in self.workers.items() if name != without and not one.leaving
        )
        target = deal(SHARDS, members, self.given)
        for shard in range(SHARDS):
            wanted = str(target[shard]) if shard in target else ""
            owner = self.given.get(shard)
            if owner == wanted or not wanted:
                continue
            if owner is None:
                self.given[shard] = wanted
                self._tell(wanted, "assigned", shard)
            elif shard not in self.workers[owner].revoking:
                self._tell(owner, "revoked", shard)

    def _tell(self, name: str, event: str, shard: int) -> None:
        events = self.workers[name].events
        if (event, frozenset({shard})) not in events:
            events.append((event, frozenset({shard})))

    # ------------------------------------------------------------------ steps of a worker

    def do(self, name: str, actions: list[Action]) -> None:
        worker = self.workers[name]
        for action in actions:
            match action:
                case Open(shard):
                    assert shard not in worker.opened, "opened twice"
                    worker.opened.add(shard)
                    worker.opens.append(shard)
                case Write(claim):
                    worker.to_write.append(claim)
                case Fence(life):
                    assert not self.calm, f"{name} fences {life}, which lives"
                    worker.fences.append(life)
                case Publish(shard, gap):
                    assert shard in worker.opened
                    if self.calm:
                        self._go_on(name, shard, gap=gap)
                case Release(shard):
                    worker.drains.append(shard)
                    self.heirs[shard] = {
                        other
                        for other, one in self.workers.items()
                        if other != name and shard in one.standing
                    }
                case Drop(shard):
                    worker.opened.discard(shard)
                    worker.standing.discard(shard)
                    worker.opens = [one for one in worker.opens if one != shard]
                    self.heirs.get(shard, set()).discard(name)

    def _go_on(self, name: str, shard: int, *, gap: bool) -> None:
        """Check that a worker goes on where the one before it ended."""
        assert not gap, f"{name} tells of a hole in shard {shard}"
        assert shard not in self.published or name in self.heirs[shard], f"hole in shard {shard}"
        self.published.add(shard)
        self.heirs[shard] = set()

    def step(self, name: str, choice: int) -> None:
        """Do one of the things that a worker could do next."""
        worker = self.workers[name]
        machine = worker.machine
        choice %= 7
        if choice == 0 and worker.events and not worker.revoking:
            self._group_event(name)
        elif choice == 1 and worker.read < len(self.log):
            self._read_one(name)
        elif choice == 2 and worker.to_write:
            self._write_one(name)
        elif choice == 3:
            if worker.opens:
                worker.standing.add(worker.opens.pop(0))
            for shard in sorted(worker.standing):
                if machine.phases.get(shard) is Phase.OPENING:
                    self.do(name, machine.opened(shard))
        elif choice == 4 and worker.fences:
            life = worker.fences.pop(0)
            self.fenced.add(life)
            self.do(name, machine.fenced_other(life))
        elif choice == 5 and worker.drains:
            if machine.me in self.fenced:
                self._new_life(name)
            else:
                self.do(name, machine.drained(worker.drains.pop(0)))
        elif (
            choice == 6 and machine.me in self.fenced and any(map(machine.publishes, range(SHARDS)))
        ):
            self._new_life(name)  # its rows are refused
        if name in self.workers and self.workers[name].machine.is_fenced:
            self._new_life(name)
        self._acknowledge(name)
        self._see_off(name)

    def _see_off(self, name: str) -> None:
        """Let a worker go that has given everything away."""
        worker = self.workers.get(name)
        if worker is None:
            return
        is_done = worker.machine.is_empty and worker.idle() and name not in self.given.values()
        if worker.leaving and is_done:
            self.kill(name)

    def leave(self, name: str) -> None:
        """It is stopped in order."""
        self.workers[name].leaving = True
        self.rebalance()

    def _group_event(self, name: str) -> None:
        worker = self.workers[name]
        event, shards = worker.events.pop(0)
        if event == "assigned":
            while worker.read < len(self.log):  # it catches up first
                self._read_one(name)
            self.do(name, worker.machine.assigned(shards))
        elif event == "revoked":
            self.do(name, worker.machine.revoked(shards))
            worker.revoking = shards
        else:
            self.do(name, worker.machine.lost(shards))
            self.rebalance()  # it joins again

    def _acknowledge(self, name: str) -> None:
        """Let the coordinator have what a member gave up, once it is given away."""
        worker = self.workers.get(name)
        if worker is None:
            return
        if worker.revoking and not any(map(worker.machine.is_giving_back, worker.revoking)):
            for shard in worker.revoking:
                self.given.pop(shard, None)
            worker.revoking = frozenset()
            self.rebalance()

    def _read_one(self, name: str) -> None:
        worker = self.workers[name]
        claim = self.log[worker.read]
        worker.read += 1
        self.do(name, worker.machine.read(claim))

    def _write_one(self, name: str) -> None:
        worker = self.workers[name]
        if worker.machine.me in self.fenced:
            self._new_life(name)
            return
        self.log.append(worker.to_write.pop(0))

    def _new_life(self, name: str) -> None:
        """It learns that it was fenced: it leaves the group and begins anew."""
        leaving = self.workers[name].leaving
        self.kill(name)
        if not leaving:
            self.join(name)

    def kill(self, name: str) -> None:
        del self.workers[name]
        for shard in [shard for shard, owner in self.given.items() if owner == name]:
            del self.given[shard]
        self.rebalance()

    # ------------------------------------------------------------------ what must hold

    def publishers(self, shard: int) -> list[Life]:
        return [
            worker.machine.me
            for worker in self.workers.values()
            if worker.machine.publishes(shard) and worker.machine.me not in self.fenced
        ]

    def settle(self) -> None:
        """Everybody is awake, and nothing happens but what must."""
        for name, worker in list(self.workers.items()):
            if worker.frozen:
                worker.frozen = False
                self.expel(name)
        if all(worker.leaving for worker in self.workers.values()):
            self.join()  # whom those who leave wait for
        for _ in range(400):
            for name in list(self.workers):
                for choice in (0, 1, 1, 2, 2, 3, 4, 5, 6):
                    if name in self.workers:
                        self.step(name, choice)
            self.check()
            self.now_s += 0.01 if self.calm else 0.5
            for name in list(self.workers):
                self.do(name, self.workers[name].machine.tick())
            if self.is_settled():
                return
        raise AssertionError(self.describe())

    def is_settled(self) -> bool:
        return (
            all(
                worker.idle()
                and not worker.leaving
                and worker.read == len(self.log)
                and all(
                    worker.machine.phases.get(shard) is Phase.LIVE
                    for shard, owner in self.given.items()
                    if owner == name
                )
                for name, worker in self.workers.items()
            )
            and len(self.given) == SHARDS
        )

    def describe(self) -> str:
        return "\n".join(
            f"{name} {worker.machine.me} {worker.machine.phases} {worker}"
            for name, worker in self.workers.items()
        )

    def check(self) -> None:
        for shard in range(SHARDS):
            assert len(self.publishers(shard)) <= 1, f"shard {shard}: {self.publishers(shard)}"
            if self.calm and shard in self.published:
                assert self.publishers(shard) or self.heirs[shard], f"nobody has shard {shard}"


class CalmCluster(RuleBasedStateMachine):
    """Joins and leaves, and all orders of reading, writing, answering: there is never a hole."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(asks_first=False, calm=True)
        self.world.join()

    def awake(self) -> list[str]:
        return sorted(name for name, one in self.world.workers.items() if not one.frozen)

    def staying(self) -> list[str]:
        return sorted(name for name, one in self.world.workers.items() if not one.leaving)

    @rule(who=st.integers(0, 9), choices=st.lists(st.integers(0, 6), min_size=1, max_size=8))
    def work(self, who: int, choices: list[int]) -> None:
        for choice in choices:
            names = self.awake()
            if names:
                self.world.step(names[who % len(names)], choice)
                self.world.check()

    @rule(rounds=st.sampled_from([1, 2, 4, 16]))
    def work_on(self, rounds: int) -> None:
        for _ in range(rounds):
            for choice in (0, 1, 1, 2, 2, 3, 4, 5):
                for name in self.awake():
                    if name in self.world.workers:
                        self.world.step(name, choice)
                        self.world.check()

    @precondition(lambda self: len(self.world.workers) < WORKERS_MAX)
    @rule()
    def join(self) -> None:
        self.world.join()

    @precondition(lambda self: len(self.staying()) > 1)
    @rule(who=st.integers(0, 9))
    def leave(self, who: int) -> None:
        names = self.staying()
        self.world.leave(names[who % len(names)])

    @rule()
    def tick(self) -> None:
        self.pass_time(0.05)

    def pass_time(self, seconds: float) -> None:
        self.world.now_s += seconds
        for name in self.awake():
            self.world.do(name, self.world.workers[name].machine.tick())

    @invariant()
    def one_publisher(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.settle()
        table = ClaimTable()
        for claim in self.world.log:
            table.take(claim)
        for shard, name in self.world.given.items():
            assert table[shard].owner == self.world.workers[name].machine.me
            assert self.world.publishers(shard) == [self.world.workers[name].machine.me]


class Cluster(CalmCluster):
    """Deaths, freezes and expulsions as well."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(asks_first=False)
        self.world.join()

    @precondition(lambda self: self.world.workers)
    @rule(who=st.integers(0, 9))
    def die(self, who: int) -> None:
        """It is killed: the coordinator notices."""
        names = sorted(self.world.workers)
        self.world.kill(names[who % len(names)])

    @precondition(lambda self: self.awake())
    @rule(who=st.integers(0, 9))
    def freeze(self, who: int) -> None:
        names = self.awake()
        self.world.workers[names[who % len(names)]].frozen = True

    @precondition(lambda self: len(self.awake()) < len(self.world.workers))
    @rule(who=st.integers(0, 9))
    def wake(self, who: int) -> None:
        names = sorted(name for name, one in self.world.workers.items() if one.frozen)
        self.world.workers[names[who % len(names)]].frozen = False

    @precondition(lambda self: self.world.workers)
    @rule(who=st.integers(0, 9))
    def expel(self, who: int) -> None:
        """The coordinator takes a member for dead, frozen or not."""
        names = sorted(self.world.workers)
        self.world.expel(names[who % len(names)])

    @precondition(lambda self: self.world.workers)
    @rule(who=st.integers(0, 9))
    def fence_by_mistake(self, who: int) -> None:
        names = sorted(self.world.workers)
        self.world.fenced.add(self.world.workers[names[who % len(names)]].machine.me)

    @rule(seconds=st.sampled_from([0.1, 2.0, 6.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)


class AskingCluster(Cluster):
    """The same where members may be called lost while they still live."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(asks_first=True)
        self.world.join()


TestCalmCluster = CalmCluster.TestCase
TestCalmCluster.settings = tried(short=150, long=20_000, steps=40)
TestCluster = Cluster.TestCase
TestCluster.settings = tried(short=150, long=20_000, steps=40)
TestAskingCluster = AskingCluster.TestCase
TestAskingCluster.settings = tried(short=100, long=10_000, steps=40)
