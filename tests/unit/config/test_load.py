"""ingestor.config: every default, every refusal, no secret shown."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from ingestor.config.load import find_problems, ignored_variables, kafka_password, load
from ingestor.config.model import Config, is_loopback, split_address
from ingestor.config.schema import json_schema, markdown, to_toml
from ingestor.model.errors import ConfigError
from ingestor.model.suggest import nearest
from ingestor.sources.registry import markets

ROOT = Path(__file__).parents[3]
VENUES = markets()
EXAMPLES = sorted((ROOT / "config").glob("*.toml"))
FEED = '[[feeds]]\nvenue = "binance"\nsymbols = ["BTC-USDT"]\n'


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("INGESTOR__")]:
        monkeypatch.delenv(name)


Problems = Callable[[str], list[str]]


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    """Write a file, return its problems as text, with the path taken away."""

    def check(text: str) -> list[str]:
        path = tmp_path / "c.toml"
        path.write_text(text)
        return [str(one).replace(f"{path}: ", "") for one in find_problems(path, VENUES)]

    return check


def test_no_file_gives_the_defaults() -> None:
    config = load(None, VENUES)
    assert config == Config()
    assert config.kafka.topic_prefix == "md."
    assert (config.batch.rows_max, config.kafka.partitions, config.http.port) == (4000, 8, 9464)
    assert config.http.host == "127.0.0.1"
    assert config.recorder is None


def test_the_environment_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[kafka]\nencoding = "binary"\npartitions = 3\n' + FEED)
    monkeypatch.setenv("INGESTOR__KAFKA__BOOTSTRAP_SERVERS", "localhost:19092,[::1]:9093")
    monkeypatch.setenv("ingestor__kafka__partitions", "4")
    monkeypatch.setenv("INGESTOR__RECORDER__PATH", "/data")
    config = load(path, VENUES)
    assert config.kafka.bootstrap_servers == "localhost:19092,[::1]:9093"
    assert (config.kafka.encoding, config.kafka.partitions) == ("binary", 4)
    assert config.recorder is not None
    assert config.recorder.path == Path("/data")
    assert [feed.venue for feed in config.feeds] == ["binance"]


def test_feeds_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTOR__FEEDS", '[{"venue": "okx", "symbols": ["*-USDT"]}]')
    assert load(None, VENUES).feeds[0].venue == "okx"


def test_a_configuration_is_frozen() -> None:
    config = load(None, VENUES)
    with pytest.raises(ValueError, match="frozen"):
        config.batch = config.batch
    with pytest.raises(ValueError, match="frozen"):
        config.batch.rows_max = 1


REFUSED = {
    '[kafka]\ntopic_prefx = "x"': "kafka.topic_prefx: unknown key; did you mean topic_prefix?",
    "[kafak]\nx = 1": "kafak: unknown key; did you mean kafka?",
    "_env_file = 1": "_env_file: unknown key",
    "[batch]\nzzz = 1": "batch.zzz: unknown key; known are linger_min_ms, linger_ms, rows_max",
    '[kafka]\nencoding = "jsn"': "kafka.encoding: unknown value 'jsn'; did you mean json?",
    "[kafka]\nacks = 1": "kafka.acks: unknown value '1'; known are all",
    "[kafka]\npartitions = 0": "kafka.partitions: must be greater than or equal to 1",
    '[kafka]\nbootstrap_servers = "kafka"': "kafka.bootstrap_servers: must be host:port",
    '[kafka]\nbootstrap_servers = "localhost:1,:2"': "kafka.bootstrap_servers: must be host:port",
    '[kafka]\nbootstrap_servers = "localhost:0"': "kafka.bootstrap_servers: must be host:port",
    '[kafka]\ntopic_prefix = "MD_"': "kafka.topic_prefix: must match pattern '^[a-z0-9.-]{0,64}$'",
    '[kafka]\nbootstrap_servers = "kafka.example.com:9092"': (
        "kafka: security_protocol PLAINTEXT to kafka.example.com is unencrypted: "
        "use SSL or SASL_SSL, or set allow_plaintext = true"
    ),
    '[kafka]\nsecurity_protocol = "SASL_SSL"': (
        "kafka: security_protocol SASL_SSL needs sasl_username and "
        "sasl_password or sasl_password_file"
    ),
    '[kafka]\nsasl_password = "a"\nsasl_password_file = "b"': (
        "kafka: sasl_password and sasl_password_file exclude each other"
    ),
    '[kafka]\nssl_keyfile = "k"': "kafka: ssl_certfile and ssl_keyfile belong together",
    "[budget]\nlow_mark = 0.9": "budget: low_mark must be below high_mark",
    "[budget]\nhigh_mark = 1.0": "budget.high_mark: must be less than 1",
    "[staleness]\nfloor_s = 301": "staleness: floor_s must not be above ceiling_s",
    '[http]\nhost = "0.0.0.0"': "http: host 0.0.0.0 is not loopback: set allow_remote = true",
    "[http]\nport = 99999": "http.port: must be less than or equal to 65535",
    "[recorder]\nfsync = 'segment'": "recorder.path: must be given",
    "[limits]\nconnect_timeout_s = inf": "limits.connect_timeout_s: must be a finite number",
    '[log]\nlevel = "warn"': "log.level: unknown value 'warn'; did you mean warning?",
    '[books]\nverify = "ja"': ("books.verify: must be a valid boolean, unable to interpret input"),
    FEED.replace("binance", "binanc"): (
        "feeds[0].venue: unknown venue 'binanc'; did you mean binance?"
    ),
    FEED.replace("binance", "Binance"): (
        "feeds[0].venue: unknown venue 'Binance'; did you mean binance?"
    ),
    FEED.replace("binance", "../x"): "feeds[0].venue: must match pattern '^[\\w.-]{1,64}$'",
    FEED + 'market = "usdtm"': (
        "feeds[0].market: binance has no market 'usdtm'; did you mean usdm?"
    ),
    FEED + 'channels = ["trade"]': (
        "feeds[0].channels[0]: unknown value 'trade'; did you mean trades?"
    ),
    FEED + "channels = []": "feeds[0].channels: must have at least 1 item",
    FEED + 'channels = ["book", "book"]': "feeds[0]: channels names one twice",
    FEED + FEED.replace("BTC-USDT", "BTC USDT"): (
        "feeds[1].symbols[0]: must match pattern '^[^\\s\\x00-\\x1f]{1,64}$'"
    ),
    '[[feeds]]\nvenue = "okx"': "feeds[0].symbols: must be given",
    FEED + "compression = true": 'feeds[0]: compression needs transport = "websockets"',
    FEED + 'proxy = "http://p"': 'feeds[0]: proxy needs transport = "websockets"',
    FEED + 'proxy = "gopher://u:canary@p:1"': (
        "feeds[0].proxy: must begin with one of http://, https://, socks5://, socks5h://"
    ),
    FEED + 'url = "https://x"': "feeds[0].url: must begin with wss:// or ws://",
    FEED + 'url = "wss://key@x"': "feeds[0].url: must be a scheme, a host and a port alone",
    FEED + 'url = "wss://x/?apiKey=1"': "feeds[0].url: must be a scheme, a host and a port alone",
    FEED + 'url = "wss://x:y"': "feeds[0].url: Port could not be cast to integer value as 'y'",
    FEED + 'url = "ws://venue.example"': (
        "feeds[0]: url ws://venue.example is unencrypted: set allow_plaintext = true"
    ),
    FEED + 'rest_url = "http://venue.example"': (
        "feeds[0]: rest_url http://venue.example is unencrypted: set allow_plaintext = true"
    ),
    FEED + 'source_addresses = ["eth0"]': (
        "feeds[0].source_addresses[0]: 'eth0' does not appear to be an IPv4 or IPv6 address"
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_each_mistake_is_one_line_with_its_key(problems: Problems, text: str) -> None:
    assert problems(text) == [REFUSED[text]]


PERMITTED = [
    '[kafka]\nbootstrap_servers = "k.example:9092"\nallow_plaintext = true',
    '[kafka]\nbootstrap_servers = "k.example:9093"\nsecurity_protocol = "SSL"',
    '[http]\nhost = "0.0.0.0"\nallow_remote = true',
    FEED + 'url = "ws://127.0.0.1:9400"',
    FEED + 'url = "ws://venue.example"\nallow_plaintext = true',
    FEED + 'transport = "websockets"\nproxy = "http://u:p@p:1"\ncompression = true',
    FEED + 'source_addresses = ["192.0.2.1", "::1"]',
]


@pytest.mark.parametrize("text", PERMITTED)
def test_what_was_asked_for_explicitly_is_permitted(problems: Problems, text: str) -> None:
    assert problems(text) == []


def test_load_raises_the_first_problem_and_counts_the_others(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[batch]\nrows_max = 0\nlinger_ms = -1\n[http]\nport = -1\n")
    with pytest.raises(ConfigError, match=r"c\.toml: batch\.rows_max: .* \(and 2 more\)$"):
        load(path, VENUES)


def test_a_file_that_is_no_toml_names_the_line(problems: Problems) -> None:
    assert problems("[kafka\n") == [
        "is no TOML: Expected ']' at the end of a table declaration (at line 1, column 7)"
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    assert [str(one) for one in find_problems(absent, VENUES)] == [
        f"{absent}: can't be read: No such file or directory"
    ]
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"a = '\xff'")
    assert [str(one) for one in find_problems(binary, VENUES)] == [
        f"{binary}: is no UTF-8 text: byte 5"
    ]


def test_mistakes_in_the_environment_name_the_variable(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGESTOR__KAFA__X", "1")
    assert problems("") == ["INGESTOR__KAFA__X: unknown section 'kafa'; did you mean kafka?"]
    monkeypatch.delenv("INGESTOR__KAFA__X")
    monkeypatch.setenv("INGESTOR__BATCH__ROWS_MAX", "many")
    assert problems("[batch]\nrows_max = 5") == [
        "INGESTOR__BATCH__ROWS_MAX: must be a valid integer, unable to parse string as an integer"
    ]
    monkeypatch.setenv("INGESTOR__FEEDS", "[")
    assert problems("") == ["INGESTOR__FEEDS: must be JSON"]
    monkeypatch.setenv("INGESTOR__FEEDS", '[{"venue": "okz", "symbols": ["x"]}]')
    monkeypatch.delenv("INGESTOR__BATCH__ROWS_MAX")
    assert problems("") == ["INGESTOR__FEEDS: unknown venue 'okz'; did you mean okx?"]


def test_password_files(problems: Problems, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    sasl = '[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_username = "me"\n'
    text = f'{sasl}sasl_password_file = "{secret}"'
    assert problems(text) == [
        f"kafka.sasl_password_file: {secret}: can't be read: No such file or directory"
    ]
    secret.write_text("canary \n\n")
    assert problems(text) == []
    assert kafka_password(Config(**tomllib.loads(text)).kafka) == "canary \n"
    inline = Config(**tomllib.loads(sasl + 'sasl_password = "x"')).kafka
    assert (kafka_password(inline), kafka_password(Config().kafka)) == ("x", None)


def test_secrets_are_never_shown() -> None:
    config = Config.model_validate(
        {
            "kafka": {"sasl_password": "canary-1"},
            "feeds": [
                {
                    "venue": "okx",
                    "symbols": ["*"],
                    "transport": "websockets",
                    "proxy": "http://user:canary-2@proxy",
                }
            ],
        }
    )
    for shown in (repr(config), str(config), to_toml(config), config.model_dump_json()):
        assert "canary" not in shown
        assert "****" in shown


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    config = load(path, VENUES)
    assert config.feeds
    assert {feed.venue for feed in config.feeds} == {path.stem.replace("demo", "simulated")}
    jsonschema.validate(tomllib.loads(path.read_text()), json_schema())


def test_every_venue_has_an_example() -> None:
    assert {path.stem for path in EXAMPLES} == {*VENUES, "demo"} - {"simulated"}


def test_the_schema_refuses_what_we_refuse() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"kafka": {"topic_prefx": "x"}}, json_schema())


def test_the_reference_page_is_current() -> None:
    """Write it anew with `ingestor config schema --markdown > docs/configuration.md`."""
    assert (ROOT / "docs" / "configuration.md").read_text() == markdown()


def test_the_reference_page_has_every_key_with_a_meaning() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 70
    assert all(not line.endswith("|  |") for line in rows)


def test_what_is_shown_can_be_read_again() -> None:
    config = Config.model_validate({"feeds": [{"venue": "okx", "symbols": ["*-USDT"]}]})
    assert Config(**tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("okz", "did you mean okx?"),
        ("zzz", "known are kraken, okx"),
    ],
)
def test_nearest(word: str, hint: str) -> None:
    assert nearest(word, ["okx", "kraken"]) == hint


def test_nearest_of_none_and_of_many() -> None:
    assert nearest("x", []) == "none is known"
    assert nearest("zzz", [f"name{number:02}" for number in range(20)]).endswith("name11, ...")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("kafka", False),
        ("localhost.example.com", False),
    ],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_split_address() -> None:
    assert split_address("[::1]:9092") == ("::1", 9092)
    assert split_address("kafka-1.example:9092") == ("kafka-1.example", 9092)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("INGESTOR_KAFKA_ENCODING", "INGESTOR__KAFKA__ENCODING"),
        ("INGESTOR_KAFKA__ENCODING", "INGESTOR__KAFKA__ENCODING"),
        ("ingestor_http_prt", "INGESTOR__HTTP__PORT"),
        ("INGESTOR_SOMETHING_ELSE", ""),
    ],
)
def test_a_variable_that_looks_like_a_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "1")
    assert (variable, meant) in ignored_variables()
    load(None, VENUES)  # it is no error


def test_variables_of_ours_and_of_others_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INGESTOR_NATIVE", "INGESTOR__KAFKA__ENCODING", "INGESTORS", "MY_INGESTOR_KEY"):
        monkeypatch.setenv(name, "json")
    assert not [name for name, _ in ignored_variables() if name.startswith(("INGESTOR_N", "MY"))]
    assert "INGESTOR__KAFKA__ENCODING" not in dict(ignored_variables())


def test_an_unknown_venue_is_listed_beside_errors_of_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "feeds.toml"
    path.write_text(
        '[[feeds]]\nvenue = "okxx"\nsymbols = ["A"]\n'
        '[[feeds]]\nvenue = "okx"\nmarket = "spott"\nsymbols = 3\n'
        "[[feeds]]\nvenue = 7\n[kafka]\npartitions = 0\n"
    )
    found = "\n".join(map(str, find_problems(path, VENUES)))
    for part in ("'okxx'", "'spott'", "feeds[1].symbols", "feeds[2].venue", "kafka.partitions"):
        assert part in found
