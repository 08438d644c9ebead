"""Hot reload: a running process follows its configuration, and touches nothing else (P7)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestor.app import Ingestor
from ingestor.app.reload import Configuration
from ingestor.config.load import load
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError, ReloadRefused
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sinks.digest import AuditSink
from ingestor.sources.registry import markets
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import Running, make_config, published, running

TRADES, QUOTES, BOOK = "trades", "quotes", "book"
CHANNELS = (TRADES, QUOTES, BOOK)


def names(numbers: Iterable[int]) -> list[str]:
    return [f"S{number:05}-USD" for number in numbers]


class Bench:
    """An ingestor at work, a venue, and the configuration as a test wants it to be."""

    def __init__(self, simulator: Simulator, config: Config) -> None:
        self.simulator = simulator
        self.config = config
        self.one: Running

    def read(self) -> Config:
        return self.config

    @property
    def feed(self) -> dict[str, Any]:
        return feed_of(self.simulator)

    def want(self, *feeds: Mapping[str, Any]) -> None:
        """Write a configuration whose feeds are these."""
        content = self.config.model_dump() | {"feeds": list(feeds)}
        self.config = Config.model_validate(content)

    async def reload(self, *, dry_run: bool = False) -> dict[str, Any]:
        return await self.one.ingestor.reloads.reload(dry_run=dry_run)

    def number(self, symbol: str) -> int:
        return self.one.ingestor.planned.table.symbols("simulated", "spot")[symbol]

    def seen(self, symbol: str, row_class: RowClass = RowClass.TRADE) -> int:
        table = self.one.ingestor.planned.table.symbols("simulated", "spot")
        if symbol not in table:
            return 0
        return self.one.ingestor.pipeline.metrics.last_seen.of(row_class, table[symbol])[0]

    async def more_of(self, symbols: Sequence[str], row_class: RowClass = RowClass.TRADE) -> None:
        """Wait until each of these had rows again."""
        before = {symbol: self.seen(symbol, row_class) for symbol in symbols}
        await self.one.until(
            lambda: all(self.seen(symbol, row_class) > before[symbol] for symbol in symbols)
        )

    def streams(self) -> set[tuple[str, str]]:
        """What the status page shows, by symbol and channel."""
        return {(one.symbol, one.channel) for one in self.one.ingestor.view.streams()}

    @property
    def reconnects(self) -> int:
        return sum(self.one.ingestor.supervisor.statistics().reconnects.values())


def feed_of(simulator: Simulator, **more: Any) -> dict[str, Any]:
    return {
        "venue": "simulated",
        "symbols": ["*"],
        "url": simulator.addresses[0],
        "rest_url": simulator.rest,
        **more,
    }


@asynccontextmanager
async def bench(
    tmp_path: Path,
    symbols: Sequence[str],
    *,
    listed: int,
    rate_per_s: float = 10.0,
    per_connection: int = 30,
    publish: bool = True,
    before: Callable[[Ingestor], None] = lambda _ingestor: None,
    **sections: Any,
) -> AsyncIterator[Bench]:
    async with Simulator(SimulatorOptions(symbols=listed, rate_per_s=rate_per_s)) as simulator:
        with DevBroker() as broker:
            feed = feed_of(simulator, symbols=symbols, streams_per_connection=per_connection)
            config = make_config(broker.bootstrap_servers, [feed], tmp_path / "cache", **sections)
            found = Bench(simulator, config)
            source = Configuration(found.read, "c.toml")
            async with running(config, publish=publish, configuration=source, before=before) as one:
                found.one = one
                await one.subscribed()
                yield found
                await one.stop()


async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.rows("P7")
async def test_fifty_of_five_hundred_come_and_fifty_go_and_the_others_notice_nothing(
    tmp_path: Path,
) -> None:
    before, after = names(range(500)), names(range(50, 550))
    stay, gone, new = before[50:], before[:50], after[450:]
    async with bench(tmp_path, before, listed=550, rate_per_s=2.0, per_connection=90) as found:
        await found.more_of(before)
        numbers = {symbol: found.number(symbol) for symbol in gone}
        accepted = found.simulator.measured().accepted
        found.want(found.feed | {"symbols": after, "streams_per_connection": 90})

        told = await found.reload(dry_run=True)
        assert (told["applied"], told["subscribe"], told["unsubscribe"]) == (False, 150, 150)
        assert told["keep"] == 450 * 3
        assert found.streams() == {(symbol, one) for symbol in before for one in CHANNELS}

        done = await found.reload()
        assert (done["applied"], done["steps"]) == (True, told["steps"])
        assert found.streams() == {(symbol, one) for symbol in after for one in CHANNELS}
        await found.more_of([*stay, *new])
        supervisor, books = found.one.ingestor.supervisor, found.one.ingestor.pipeline.books
        await found.one.until(lambda: all(books.is_valid(found.number(one)) for one in new))
        await found.one.until(lambda: found.simulator.measured().streams == 1500)
        assert all(supervisor.connection_of(one) is None for one in numbers.values())
        assert not any(books.is_valid(one) for one in numbers.values())
        monitor = found.one.ingestor.staleness_monitor
        assert monitor is not None
        watched = {number for number, _ in monitor.silent_streams}
        assert not watched & {*numbers.values()}
        await found.more_of([*stay, *new])  # what was on the way has come
        quiet = {symbol: found.seen(symbol) for symbol in gone}
        await found.more_of([*stay, *new])
        assert {symbol: found.seen(symbol) for symbol in gone} == quiet

        assert found.reconnects == 0
        opened = sum(step["action"] == "open" for step in done["steps"])
        assert found.simulator.measured().accepted == accepted + opened
        again = await found.reload()
        assert (again["steps"], again["subscribe"], again["keep"]) == ([], 0, 1500)
        config = found.one.ingestor.config
        drained = await found.one.stop()
        assert (drained.status.unaccounted, drained.lost) == (0, 0)
        rows = await published(config)
    for symbol in stay:
        for row_class in (one for one in ROW_CLASSES if one.is_standard):
            kinds = rows.rows(row_class, f"simulated:spot:{symbol}")["kind"]
            assert len(kinds)
            assert not (kinds == Kind.GAP).any(), symbol
    for symbol in gone:
        kinds = rows.rows(RowClass.TRADE, f"simulated:spot:{symbol}")["kind"].tolist()
        assert kinds.count(Kind.GAP) == 1


async def change_everything(found: Bench, binance: Simulator) -> None:
    """Add a feed, change its books' form and its channels, remove channels and the feed.

    Trades and quotes stay where they are when the books beside them change their form.
    """
    symbols = names(range(4))
    own = {"symbols": symbols, "streams_per_connection": 12}
    spot = feed_of(binance, venue="binance", market="spot", streams_per_connection=9)
    ingestor, table = found.one.ingestor, found.one.ingestor.planned.table
    books = ingestor.pipeline.books

    def number(symbol: str) -> int:
        return table.symbols("binance", "spot")[symbol]

    def all_valid() -> bool:
        numbers = table.symbols("binance", "spot").values()
        return len(numbers) == 3 and all(map(books.is_valid, numbers))

    mine = found.feed | own
    found.want(mine, spot)
    done = await found.reload()
    assert [step["action"] for step in done["steps"]] == ["open"]
    await found.one.until(all_valid)

    trades = ingestor.supervisor.connection_of(number("S00000USD"), TRADES)
    found.want(mine, spot | {"speed_ms": 1000})
    done = await found.reload()
    assert sorted(step["action"] for step in done["steps"]) == ["change", "open"]
    assert (done["subscribe"], done["unsubscribe"]) == (3, 3)
    await found.one.until(all_valid)
    assert ingestor.supervisor.connection_of(number("S00000USD"), TRADES) is trades
    changed = ingestor.supervisor.connection_of(number("S00000USD"), BOOK)
    assert changed is not None
    assert changed is not trades
    assert changed.slot.planned.streams == [f"s0000{one}usd@depth" for one in range(3)]

    found.want(mine | {"channels": [TRADES]}, spot | {"speed_ms": 1000})
    done = await found.reload()
    assert (done["subscribe"], done["unsubscribe"]) == (0, 8)
    await found.more_of(symbols)
    found.want(mine, spot | {"depth": 100, "speed_ms": 1000, "channels": [BOOK]})
    done = await found.reload()
    await found.one.until(all_valid)
    await found.more_of(symbols, RowClass.QUOTE)
    found.want(mine)
    await found.reload()
    await found.one.until(lambda: binance.measured().streams == 0)
    await found.more_of(symbols)


async def test_channels_a_book_speed_and_whole_feeds_change_and_a_replay_gives_the_same(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "recordings"
    options = SimulatorOptions(symbols=3, rate_per_s=30.0, dialect="binance")
    symbols = names(range(4))
    async with Simulator(options) as binance:
        heard = AuditSink()

        def note(result: FlushResult, _now_ns: int) -> None:
            for batch in result.batches:
                heard.submit(batch, 0)

        async with bench(
            tmp_path,
            symbols,
            listed=6,
            per_connection=12,
            publish=False,
            before=lambda ingestor: ingestor.flusher.observe(note),
            recorder={"path": folder},
        ) as found:
            await change_everything(found, binance)
            assert found.reconnects == 0
            assert (await found.one.stop()).status.unaccounted == 0
    run = Replay(ReplayOptions((folder,)))
    again = audit(run)
    assert not run.problems.kept
    assert again["rows"] == heard.rows
    assert again["digest"] == heard.digest.hexdigest()


async def test_patterns_follow_what_is_listed_and_another_venue_joins(tmp_path: Path) -> None:
    async with bench(tmp_path, names(range(3)), listed=6) as found:
        await found.more_of(names(range(3)))
        found.want(found.feed | {"symbols": ["S0000[2-5]-USD"], "streams_per_connection": 30})
        done = await found.reload()
        assert (done["subscribe"], done["unsubscribe"], done["keep"]) == (9, 6, 3)
        await found.more_of(names(range(2, 6)))
        assert found.reconnects == 0
        assert {symbol for symbol, _ in found.streams()} == {*names(range(2, 6))}


async def test_an_added_venue_that_is_unreachable_waits_alone(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    async with bench(tmp_path, names(range(3)), listed=6) as found:
        away = f"http://127.0.0.1:{unused_tcp_port}"
        other = {"venue": "okx", "symbols": ["BTC-USDT"], "rest_url": away}
        found.want(
            found.feed | {"symbols": names(range(1, 4)), "streams_per_connection": 30}, other
        )
        done = await found.reload()
        assert (done["applied"], done["subscribe"], done["unsubscribe"]) == (True, 3, 3)
        assert [(one["venue"], one["reason"]) for one in done["waiting"]] == [("okx", "no_list")]
        await found.more_of(names(range(1, 4)))
        assert found.reconnects == 0


async def test_two_at_once_are_done_one_after_the_other(tmp_path: Path) -> None:
    async with bench(tmp_path, names(range(3)), listed=6) as found:
        more = {"streams_per_connection": 30}
        found.want(found.feed | more | {"symbols": names(range(4))})
        first = asyncio.create_task(found.reload())
        second = asyncio.create_task(found.reload())
        done, again = await asyncio.gather(first, second)
        assert (done["subscribe"], done["steps"] != []) == (3, True)
        assert (again["subscribe"], again["steps"], again["keep"]) == (0, [], 12)
        found.one.ingestor.request_reload()
        found.one.ingestor.request_reload()
        counts = found.one.ingestor.reloads.counts
        await found.one.until(lambda: counts["applied"] >= 3)
        await found.more_of(names(range(4)))
        assert found.reconnects == 0


async def test_a_stop_during_a_reload_ends_in_order_with_nothing_changed(tmp_path: Path) -> None:
    async with bench(tmp_path, names(range(3)), listed=6) as found:
        hanging = await asyncio.start_server(never_answer, "127.0.0.1", 0)
        port = hanging.sockets[0].getsockname()[1]
        other = {"venue": "okx", "symbols": ["BTC-USDT"], "rest_url": f"http://127.0.0.1:{port}"}
        before = found.one.ingestor.planned.plan
        found.want(found.feed | {"symbols": names(range(1, 4))}, other)
        waiting = asyncio.create_task(found.reload())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        drained = await found.one.stop()
        with pytest.raises(ReloadRefused, match="stopping"):
            await waiting
        assert found.one.ingestor.planned.plan == before
        assert (drained.status.unaccounted, drained.lost) == (0, 0)
        with pytest.raises(ReloadRefused, match="stopping"):
            await found.reload()
        hanging.close()


async def test_a_reload_while_kafka_is_away_is_applied_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    async with Simulator(SimulatorOptions(symbols=6, rate_per_s=10.0)) as simulator:
        with DevBroker() as broker:
            feed = feed_of(simulator, symbols=names(range(3)))
            config = make_config(broker.bootstrap_servers, [feed], tmp_path)
            found = Bench(simulator, config)
            async with running(config, configuration=Configuration(found.read, "c")) as one:
                found.one = one
                await one.subscribed()
                await one.until(lambda: one.status.acked > 10)
                broker.set_down()
                await asyncio.sleep(1.0)
                found.want(feed | {"symbols": names(range(1, 4))})
                done = await found.reload()
                assert (done["applied"], done["subscribe"]) == (True, 3)
                await found.more_of(names(range(1, 4)))
                broker.set_up()
                await one.until(lambda: one.ingestor.sink is not None and one.ingestor.sink.is_up)
                drained = await one.stop()
                assert (drained.lost, drained.status.unaccounted) == (0, 0)
                rows = await published(config)
                assert rows.rows(RowClass.TRADE, f"simulated:spot:{names([3])[0]}").size
                assert (rows.holes, rows.duplicates) == (0, 0)


IN_FEED = [
    "venue = ",
    'depth = "deep"',
    "depth = 10",
    "speed_ms = 5",
    "depth = -1",
    'channels = ["trade"]',
    "channels = []",
    'channels = ["trades", "trades"]',
    'transport = "carrier pigeon"',
    "streams_per_connection = 0",
    'proxy = "http://user:hunter22@proxy:1"',
    'source_addresses = ["here"]',
    'market = "moon"',
    "compression = true",
    "symbolz = 1",
    'allow_plaintext = "perhaps"',
]
SECTIONS = [
    '[kafka]\nencoding = "binary"',
    '[kafka]\nencoding = "xml"',
    "[kafka]\npartitions = 9",
    '[kafka]\nbootstrap_servers = "127.0.0.1:1"',
    '[kafka]\ntopic_prefix = "other."',
    '[kafka]\ncompression = "zstd"',
    "[kafka]\npartitions = 0",
    "[batch]\nrows_max = 7",
    "[batch]\nlinger_ms = -1",
    "[budget]\nbytes = 100000",
    "[budget]\nlow_mark = 0.9",
    "[books]\nverify = false",
    "[books]\nlevels_max = 5",
    "[trades]\nbackfill = false",
    "[staleness]\nfloor_s = 400",
    "[http]\nport = 1234",
    '[http]\nhost = "0.0.0.0"',
    '[recorder]\npath = "/tmp/other"',
    "[catalogue]\nttl_s = 1",
    "[limits]\ndrain_s = 99",
    "[limits]\nconnections_max = 0",
    "[limits]\nconnections_max = 1\n",
    "[log]\nper_cause_per_minute = 0",
    '[log]\nlevel = "loud"',
    "[unknown]",
    "kafka = 3",
]


def bad_files(toml: str) -> list[str]:
    """Return configurations that are wrong, or that only a restart can follow."""
    key = re.compile(r"^symbols = .*$", re.MULTILINE)
    feed = toml[toml.index("[[feeds]]") :]

    def replaced(line: str) -> str:
        return key.sub(lambda _: line, toml)

    return [
        "",
        "]",
        toml[: len(toml) // 2],
        toml.replace("[[feeds]]", "[feeds]"),
        toml.replace('"simulated"', '"simulted"'),
        toml.replace(feed, ""),
        *(replaced(f"symbols = {text}") for text in ("[]", '["NONE-SUCH"]', '[""]', "3")),
        *(f"{toml}{line}\n" for line in IN_FEED),
        *(f"{section}\n{toml}" for section in SECTIONS),
    ]


@pytest.mark.rows("P7")
async def test_fifty_bad_configurations_change_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, names(range(6)), listed=6, per_connection=6) as found:
        feed = found.config.feeds[0]
        toml = (
            '[[feeds]]\nvenue = "simulated"\nsymbols = ["S0000[0-5]-USD"]\n'
            f'url = "{feed.url}"\nrest_url = "{feed.rest_url}"\nstreams_per_connection = 6\n'
        )
        file = tmp_path / "c.toml"
        source = Configuration(lambda: merged(found.config, load(file, markets())), str(file))
        file.write_text(toml)
        ingestor = found.one.ingestor
        assert (await ingestor.reloads.reload(configuration=source))["steps"] == []
        before, config = ingestor.planned, ingestor.config
        bad = bad_files(toml)
        for text in bad:
            file.write_text(text)
            with pytest.raises(ConfigError) as refused:
                raise AssertionError(text, await ingestor.reloads.reload(configuration=source))
            assert "\n" not in str(refused.value)
            assert str(file) in str(refused.value), refused.value
            assert "hunter22" not in str(refused.value)
            assert ingestor.planned is before
            assert ingestor.config is config
        file.unlink()
        with pytest.raises(ConfigError, match="No such file"):
            await ingestor.reloads.reload(configuration=source)
        assert len(bad) >= 50
        assert ingestor.reloads.counts["refused"] == len(bad) + 1
        await found.more_of(names(range(6)))
        assert found.reconnects == 0
        assert (await found.one.stop()).status.unaccounted == 0


def merged(base: Config, one: Config) -> Config:
    """Return what the file says, else what the test's own configuration has."""
    said = {"feeds": one.feeds} | {name: getattr(one, name) for name in one.model_fields_set}
    for name, section in said.items():
        if name not in {"feeds", "recorder"}:
            fields = {key: getattr(section, key) for key in section.model_fields_set}
            said[name] = getattr(base, name).model_copy(update=fields)
    return base.model_copy(update=said)
