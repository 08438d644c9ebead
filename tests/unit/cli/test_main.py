"""The commands, as a user calls them: output, one line per mistake, exit status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from ingestor.cli import common as cli_common
from ingestor.cli import doctor, surroundings
from ingestor.cli import main as cli
from ingestor.model.errors import ConfigError, ListenFailed
from ingestor.model.timestamps import SECOND
from ingestor.recording.format import Header, Line, Recv, encode_lines
from tests.kafka.broker import free_ports

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]
COMMANDS = {
    "audit": [],
    "books": ["verify"],
    "capacity": [],
    "check": [],
    "compact": [],
    "config": ["show", "check", "schema", "init"],
    "consume": [],
    "demo": [],
    "dev-broker": [],
    "doctor": [],
    "feeds": [],
    "profile": [],
    "record": [],
    "refill": [],
    "repair": [],
    "replay": [],
    "run": [],
    "serve": [],
    "simulate": [],
    "symbols": [],
    "top": [],
}


pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture(autouse=True)
def _no_cache_of_mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("INGESTOR__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("INGESTOR__CATALOGUE__CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: (status, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ingestor", *arguments])
        status = cli.main()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def every_command() -> list[list[str]]:
    return [
        [],
        *([name] for name in COMMANDS),
        *([name, sub] for name, subs in COMMANDS.items() for sub in subs),
    ]


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_help_with_an_example(run: Run, command: list[str]) -> None:
    status, out, err = run(*command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith("Usage: ingestor")
    if command in ([], ["books"], ["config"]):
        assert "Exit status: 0" in out or command
    else:
        assert "Example" in out
        assert f"ingestor {' '.join(command)}" in out


def test_all_commands_are_listed(run: Run) -> None:
    _, out, _ = run("--help")
    listed = {
        line.split()[0] for line in out.split("Commands:")[1].splitlines() if line[2:3].strip()
    }
    assert set(COMMANDS) <= listed


def test_help_imports_nothing_heavy() -> None:
    """What makes `ingestor --help` slow is importing what it doesn't need."""
    code = (
        "import sys; sys.argv = ['ingestor', '--help']\n"
        "from ingestor.cli.main import main\n"
        "assert main() == 0\n"
        "heavy = {'numpy', 'aiokafka', 'aiohttp', 'pydantic_settings', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_python_m_ingestor_is_the_same(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingestor", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, run("--version")[1])


MISTAKES = [
    (["chek"], "No such command 'chek'", 2),
    (["check"], "Missing argument 'CONFIG'", 2),
    (["check", "--jsn", "x"], "No such option: --jsn", 2),
    (["check", "absent.toml"], "absent.toml: can't be read: No such file or directory", 2),
    (["check", "."], ".: can't be read: Is a directory", 2),
    (["feeds", "binanc"], "unknown venue 'binanc'; did you mean binance?", 2),
    (["repair", "absent"], "'PATH': path 'absent' does not exist (see", 2),
    (["dev-broker", "--topic", "x"], "'x' is no NAME:PARTITIONS", 2),
    (["run"], "Missing argument 'CONFIG'", 2),
    (["run", "config/demo.toml", "--workers", "0"], "Invalid value for '--workers'", 2),
    (["run", "config/demo.toml", "--worker", "2/2"], "--worker: '2/2' is no I/N", 2),
    (["run", "absent.toml"], "absent.toml: can't be read: No such file or directory", 2),
    (["record", "config/kraken.toml"], "recorder.path: must be given; or say --path", 2),
    (["replay", "config", "--speed", "quick"], "'quick' is neither a number above 0 nor max", 2),
    (["replay", "config", "--channel", "trade"], "unknown channel 'trade'; did you mean trades", 2),
    (["replay", "config", "--from", "noon"], "'noon' is no time: write 2026-11-21T10:00:00Z", 2),
    (["replay", "config", "--audit", "--kafka"], "--audit goes to nothing", 2),
    (["replay", "tests/vectors", "--kafka", "--prefix", "md."], "the prefix of the live topics", 2),
    (["serve", "config", "--fault", "dorp=1"], "unknown fault 'dorp'; did you mean drop", 2),
    (["serve", "config", "--fault", "drop=x"], "'drop=x' is no NAME=PROBABILITY", 2),
    (["serve", "config", "--fault", "drop=2"], "probabilities are not negative", 2),
    (["replay", "README.md"], "README.md: there is nothing to replay; README.md, byte 0: ", 2),
    (["serve", "README.md", "--port", "0"], "nothing to play: README.md, byte 0: ", 2),
    (["compact", "config"], "there is no folder of raw segments", 2),
    (["consume", "md.trades.v1", "--bootstrap-servers", "x"], "must be host:port", 2),
]


@pytest.mark.parametrize(("arguments", "text", "status"), MISTAKES, ids=lambda one: str(one)[:40])
def test_a_mistake_is_one_line_and_a_status(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str, status: int
) -> None:
    monkeypatch.chdir(ROOT)
    got, out, err = run(*arguments)
    assert (got, out) == (status, "")
    assert err.startswith("ingestor: ")
    assert err.count("\n") == 1
    assert text in err


CONFIG_MISTAKES = {
    '[[feeds]]\nvenue = "binanc"\nsymbols = ["x"]': "unknown venue 'binanc'; did you mean binance?",
    "[kafka]\ntopic_prefx = 'x'": "kafka.topic_prefx: unknown key; did you mean topic_prefix?",
    "[kafka": "is no TOML",
    "": "names no feeds; add a [[feeds]] section",
    '[limits]\nconnections_max = 1\n[[feeds]]\nvenue = "binance"\nmarket = "usdm"\n'
    'symbols = ["x"]': "limits.connections_max: the plan has 2 connections, more than 1",
}


@pytest.mark.parametrize("text", CONFIG_MISTAKES)
def test_a_bad_configuration_is_one_line_naming_the_file(
    run: Run, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    status, out, err = run("check", str(path))
    assert (status, out) == (2, "")
    assert err.startswith(f"ingestor: {path}: ")
    assert err.count("\n") == 1
    assert CONFIG_MISTAKES[text] in err


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may read everything: be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("")
    cli_common.load_config(path)  # imports what it needs
    path.chmod(0)
    with as_ordinary_user(), pytest.raises(ConfigError, match="Permission denied"):
        cli_common.load_config(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "config").glob("*.toml")))
def test_every_example_has_a_plan(run: Run, name: str) -> None:
    status, out, err = run("check", str(ROOT / "config" / f"{name}.toml"))
    assert (status, err) == (0, "")
    assert "why: " in out
    assert "unchecked" in out  # the cache is empty


def test_the_plan_as_json(run: Run) -> None:
    status, out, _ = run("check", str(ROOT / "config" / "binance.toml"), "--json")
    assert status == 0
    plan = json.loads(out)
    usdm = [one for one in plan["connections"] if one["market"] == "usdm"]
    assert [one["url"].rsplit("/", 2)[1] for one in usdm] == ["public", "market"]
    assert usdm[0]["subscriptions"][0]["channel"] == "quotes"
    assert plan["unchecked_markets"] == ["binance spot", "binance usdm", "binance coinm"]


def test_symbols_are_checked_against_a_list_that_is_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingestor.sources.registry import adapter_of
    from ingestor.sources.rest import catalog as catalogue

    kraken = adapter_of("kraken")
    body = json.dumps(
        {
            "error": [],
            "result": {
                "XXBTZUSD": {
                    "altname": "XBTUSD",
                    "wsname": "XBT/USD",
                    "base": "XXBT",
                    "quote": "ZUSD",
                    "pair_decimals": 1,
                    "lot_decimals": 8,
                    "tick_size": "0.1",
                    "status": "online",
                }
            },
        }
    ).encode()
    kept = catalogue._Kept(1, [body])
    rest_url = kraken.markets["spot"].rest_url
    path = tmp_path / "cache" / "instruments" / "kraken-spot.json"
    catalogue._write(path, rest_url, kept)
    config = tmp_path / "c.toml"
    config.write_text('[[feeds]]\nvenue = "kraken"\nsymbols = ["BTC-UDS"]\n')
    status, _, err = run("check", str(config))
    assert status == 2
    assert "feeds[0].symbols: kraken spot has no symbol 'BTC-UDS'" in err
    assert "did you mean BTC-USD" in err
    config.write_text('[[feeds]]\nvenue = "kraken"\nsymbols = ["*-USD"]\n')
    status, out, err = run("check", str(config))
    assert (status, err) == (0, "")
    assert "unchecked" not in out


def test_feeds_lists_every_venue(run: Run) -> None:
    text, found = run("feeds")[1], json.loads(run("feeds", "--json")[1])
    assert {one["venue"] for one in found} >= {"binance", "bybit", "coinbase", "kraken", "okx"}
    assert text.count("\n") == len({(one["venue"], one["market"]) for one in found}) + 1
    assert {one["venue"] for one in json.loads(run("feeds", "kraken", "--json")[1])} == {"kraken"}


def test_config_show_stars_secrets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGESTOR__KAFKA__SASL_PASSWORD", "canary")
    monkeypatch.setenv("INGESTOR__KAFKA__ENCODING", "binary")
    for options in ([], ["--json"]):
        status, out, err = run("config", "show", *options)
        assert (status, err) == (0, "")
        assert "canary" not in out
        content = json.loads(out) if options else tomllib.loads(out)
        assert content["kafka"]["encoding"] == "binary"


def test_config_check_prints_every_problem(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[batch]\nrows_max = 0\n[http]\nprt = 1\n")
    status, out, err = run("config", "check", str(path))
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 2
    path.write_text("")
    assert run("config", "check", str(path)) == (0, f"{path}: nothing wrong\n", "")


def test_config_schema_in_both_forms(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("config", "schema")[1])["type"] == "object"
    page = tmp_path / "page.md"
    assert run("config", "schema", "--markdown", "--output", str(page)) == (0, "", "")
    assert page.read_text() == (ROOT / "docs" / "configuration.md").read_text()


def test_a_file_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    status, _, err = run("config", "schema", "--output", str(tmp_path / "no" / "x"))
    assert status == 1
    assert err == f"ingestor: {tmp_path / 'no' / 'x'}: No such file or directory\n"


def test_doctor_finds_a_broker_and_a_port_in_use(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv("INGESTOR__KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{port}")
        monkeypatch.setenv("INGESTOR__HTTP__PORT", str(port))
        monkeypatch.setattr(surroundings, "_LOGIN_S", 0.1)  # it accepts, and says nothing
        status, out, _ = run("doctor", "--json")
    states = {one["what"]: one for one in json.loads(out)}
    assert status == 1
    assert states["broker"]["state"] == "ok"
    assert states["kafka login"]["state"] == "failed"
    assert states["http port"]["state"] == "failed"
    assert states["http port"]["text"].endswith("Address already in use")


@pytest.mark.parametrize(
    ("allowed", "state"), [("262144\n", "ok"), ("262143\n", "warning"), (None, "ok")]
)
def test_doctor_says_when_the_kernel_allows_less(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: str | None, state: str
) -> None:
    bound = tmp_path / "rmem_max"
    monkeypatch.setattr(doctor, "_RMEM_MAX", bound)
    if allowed is not None:
        bound.write_text(allowed)
    _, out, _ = run("doctor", "--json")
    found = {one["what"]: one for one in json.loads(out)}["receive buffer"]
    assert found["state"] == state
    assert "262,144" in found["text"]
    assert ("raise net.core.rmem_max" in found["text"]) == (state == "warning")


def test_doctor_says_when_the_broker_is_not_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("INGESTOR__KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{port}")
    monkeypatch.setenv("INGESTOR__HTTP__PORT", "0")
    status, out, _ = run("doctor")
    assert status == 1
    assert f"127.0.0.1:{port}: Connection refused" in out


def test_repair_of_what_is_no_recording(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.zst"
    path.write_text("nothing")
    status, out, err = run("repair", str(path))
    assert status == 1
    assert out == ""
    assert err.count("\n") == 1
    assert str(path) in err


def test_repair_says_what_a_killed_recorder_lost(run: Run, tmp_path: Path) -> None:
    lines: list[Line] = [
        Header(venue="acme", format=1, session="s1"),
        Recv(1_790_000_000 * SECOND, 1, "{}"),
    ]
    frame = zstandard.compress(encode_lines(lines))
    path = tmp_path / "s1-000000000000.jsonl.zst.inprogress"
    path.write_bytes(frame + frame[:-1])
    status, out, _ = run("repair", str(path))
    assert status == 0
    assert f"{len(frame) - 1} bytes cut, 2 lines kept" in out
    assert f"within a zstd frame at byte {len(frame)}" in out
    assert "the last is of 2026-09-21T14:13:20.000000000Z, a second after it may be lost" in out


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_embedded_broker_runs_until_it_is_stopped(stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "ingestor", "dev-broker", "--topic", "md.trades.v1:3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    shell = shutil.which("bash")
    assert shell is not None
    script = f"set -o pipefail; {sys.executable} -m ingestor config schema | head -c 10"
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["consume", "md.trades.v1"], ["audit"]], ids=lambda one: str(one[0])
)
def test_a_broker_that_cannot_be_reached_is_one_line(run: Run, arguments: list[str]) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    status, out, err = run(*arguments, "--bootstrap-servers", address)
    lines = [line for line in err.splitlines() if line.startswith("ingestor: ")]
    assert (status, out) == (1, "")
    assert len(lines) == 1
    assert lines[0].startswith(f"ingestor: Kafka at {address} is unavailable: ")
    assert "Traceback" not in err


def test_a_port_in_use_is_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, out, err = run("simulate", "--port", str(port))
    assert (status, out) == (1, "")
    assert err.startswith(f"ingestor: the simulated venue can't listen on 127.0.0.1:{port}: ")
    assert err.count("\n") == 1


class TestVerdict:
    def test_expected_errors(self) -> None:
        assert cli_common.verdict(ConfigError("x", where="f: k")) == ("f: k: x", 2)
        listen = ListenFailed("the HTTP server", "h:1", "in use")
        assert cli_common.verdict(listen) == ("the HTTP server can't listen on h:1: in use", 1)
        assert cli_common.verdict(OSError(28, "x", "f")) == ("f: No space left on device", 1)
        assert cli_common.verdict(TimeoutError()) == ("TimeoutError", 1)

    def test_a_missing_extra(self) -> None:
        missing = ModuleNotFoundError("no", name="pyarrow.parquet")
        expected = "this needs the package pyarrow; install market-data-ingestor[parquet]"
        assert cli_common.verdict(missing) == (expected, 2)
        assert cli_common.verdict(ModuleNotFoundError("no", name="ingestor.oops")) is None

    def test_a_group_speaks_for_its_first_member(self) -> None:
        group = ExceptionGroup("g", [ExceptionGroup("h", [ConfigError("x")]), OSError("y")])
        assert cli_common.verdict(group) == ("x", 2)

    def test_bugs_are_not_hidden(self) -> None:
        assert cli_common.verdict(ZeroDivisionError()) is None
        assert cli_common.verdict(ExceptionGroup("g", [ConfigError("x"), KeyError()])) is None


def test_a_bug_shows_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestor.sources.registry.markets", lambda: dict[str, int]()["bug"])
    with pytest.raises(KeyError):
        run("config", "show")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'symbols = ["BTC-USD"]\ndepth = 11',
            "feeds[0].depth: kraken spot has no book of 11 levels",
        ),
        ('symbols = "BTC-USD"', 'feeds[0].symbols: must be a list, such as ["first", "second"]'),
    ],
)
def test_what_a_check_of_the_file_finds(run: Run, tmp_path: Path, line: str, said: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[[feeds]]\nvenue = "kraken"\n{line}\n')
    status, out, err = run("config", "check", str(config))
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert said in err


def test_every_command_lists_all_that_is_wrong(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[kafka]\nbootstrap_servers = "x"\n[budget]\nbytes = -1\n')
    status, _, err = run("check", str(path))
    assert status == 2
    wrong = [line.split(": ")[2] for line in err.splitlines()]
    assert wrong == ["kafka.bootstrap_servers", "budget.bytes"]
    assert "more)" not in err
