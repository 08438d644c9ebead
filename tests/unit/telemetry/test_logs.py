"""ingestor.telemetry.logs: one line an event, limited per cause, and no secret in any of them."""

from __future__ import annotations

import io
import logging

import orjson
import pytest
import structlog

from ingestor.config.model import LogConfig
from ingestor.telemetry.logs import RateLimit, Redactor, configure, label

pytestmark = pytest.mark.usefixtures("own_logging")


def lines_of(stream: io.BytesIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_have_time_level_event_and_fields() -> None:
    stream = io.BytesIO()
    configure(LogConfig(format="json"), stream=stream)
    structlog.get_logger().info("session.reconnect", venue="okx", attempt=2, key="okx:spot:A")
    (line,) = lines_of(stream)
    assert str(line.pop("ts")).endswith("Z")
    assert line == {
        "level": "info",
        "event": "session.reconnect",
        "venue": "okx",
        "attempt": 2,
        "key": "okx:spot:A",
    }


def test_a_labelled_process_says_so_on_every_line() -> None:
    stream = io.BytesIO()
    configure(LogConfig(format="json"), stream=stream)
    label(worker=1)
    structlog.get_logger().info("a")
    logging.getLogger("library").warning("b")
    assert [line["worker"] for line in lines_of(stream)] == [1, 1]


def test_the_level_filters() -> None:
    stream = io.BytesIO()
    configure(LogConfig(format="json", level="warning"), stream=stream)
    structlog.get_logger().info("a")
    structlog.get_logger().warning("b")
    assert [line["event"] for line in lines_of(stream)] == ["b"]


def test_the_console_format_is_one_line() -> None:
    stream = io.BytesIO()
    configure(LogConfig(format="console"), stream=stream)
    structlog.get_logger().info("feed.up", venue="okx")
    text = stream.getvalue().decode()
    assert text.count("\n") == 1
    assert "feed.up" in text
    assert "venue=okx" in text


def test_libraries_log_through_us_from_warning_on() -> None:
    stream = io.BytesIO()
    configure(LogConfig(format="json", level="debug"), stream=stream)
    logging.getLogger("websockets").debug("> GET / HTTP/1.1 secret")
    logging.getLogger("aiokafka").warning("lost %s", "node 1")
    (line,) = lines_of(stream)
    assert (line["event"], line["logger"], line["message"]) == (
        "library",
        "aiokafka",
        "lost node 1",
    )


class Limited:
    """Counts what passes a limit at times of a test's own."""

    def __init__(self, per_minute: int) -> None:
        self.now_s = 0.0
        self.passed: list[dict[str, object]] = []
        self._limit = RateLimit(per_minute, lambda: self.now_s)

    def log(self, event: str, **fields: object) -> dict[str, object] | None:
        """Return what is written of an event, None where the limit holds it."""
        try:
            written = dict(self._limit(None, "info", {"event": event, **fields}))
        except structlog.DropEvent:
            return None
        self.passed.append(written)
        return written


@pytest.mark.rows("K9")
def test_a_cause_that_repeats_is_counted() -> None:
    limited = Limited(2)
    written = [bool(limited.log("reconnect", cause="closed")) for _ in range(5)]
    assert written == [True, True, False, False, False]
    assert limited.log("reconnect", cause="timeout") == {"event": "reconnect", "cause": "timeout"}
    assert limited.log("reconnect", reason="other")
    limited.now_s = 60.0
    again = {"event": "reconnect", "cause": "closed"}
    assert limited.log("reconnect", cause="closed") == again | {"suppressed": 3}
    assert limited.log("reconnect", cause="closed") is None  # it goes on: one line a minute
    limited.now_s = 180.0  # a minute without overrunning it
    assert limited.log("reconnect", cause="closed") == again | {"suppressed": 1}
    assert limited.log("reconnect", cause="closed") == again


@pytest.mark.rows("K9")
def test_an_outage_of_345_seconds_takes_few_lines() -> None:
    """As in an outage of Kafka: two causes of the client's, and two of ours that vary."""
    limited = Limited(10)
    for tenth in range(3_450):
        limited.now_s = tenth / 10
        for place in range(3):
            limited.log("library", cause=f"aiokafka: place {place}", message=f"{tenth} more")
        if not tenth % 20:
            lost = f"KafkaConnectionError('connection to 127.0.0.1:{20_000 + tenth} lost')"
            limited.log("kafka.unavailable", reason=lost, retry_s=tenth / 100)
    assert len(limited.passed) == 4 * (10 + 5)
    told = sum(int(str(line.get("suppressed", 0))) for line in limited.passed)
    assert told + len(limited.passed) > 5 / 6 * 3 * 3_450


def test_a_cause_is_the_same_whatever_numbers_it_quotes() -> None:
    limited = Limited(1)
    assert limited.log("a", reason="<object at 0x7f00aa>, port 45012 after 1.25 s")
    assert limited.log("a", reason="<object at 0x7f11bb>, port 45013 after 0.75 s") is None
    assert limited.log("a", reason="HTTP 429")
    assert limited.log("a", reason="HTTP 503")


def test_a_venue_takes_no_lines_from_another() -> None:
    limited = Limited(1)
    assert limited.log("connection.down", venue="okx", cause="closed")
    assert limited.log("connection.down", venue="okx", cause="closed") is None
    assert limited.log("connection.down", venue="kraken", cause="closed")


def test_causes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestor.telemetry.logs.CAUSES_MAX", 10)
    limit = RateLimit(1, lambda: 0.0)
    for number in range(100):
        limit(None, "info", {"event": "e", "cause": str(number)})
    assert len(limit._windows) == 10


CANARIES = [f"canary{number:02}Zq" for number in range(40)]


def plant(log: structlog.typing.FilteringBoundLogger) -> None:
    """Put each canary where a secret may turn up."""
    c = CANARIES
    log.info("a", sasl_password=c[0], url=f"wss://user:{c[1]}@venue.example/ws")
    log.info(
        "b", url=f"wss://venue.example/ws?apiKey={c[2]}&stream=x", headers={"Authorization": c[3]}
    )
    log.info(
        "c", detail=f"https://venue.example/?x=1&signature={c[4]}", nested={"a": [{"token": c[5]}]}
    )
    log.info("d", text=f'{{"op":"login","passphrase":"{c[6]}","secret": "{c[7]}"}}')
    log.info("e", raw=f"api_key={c[8]}; next".encode())
    log.info("f", error=ValueError(f"password: {c[9]}"))
    log.info(" ".join(["g", "secret=" + c[10]]))
    log.warning("h", header=f"Authorization: Bearer {c[11]}", cookie=c[12])
    log.info("i", known=f"anywhere {c[13]} at all", **{c[14]: 1})
    try:
        local = c[15]  # a traceback with variables would show it
        raise RuntimeError(f"proxy http://{c[16]}@proxy:3128 refused, token={local}")
    except RuntimeError:
        log.exception("j")
    logging.getLogger("aiokafka").error("SASL failed: password=%s", c[17])
    log.info("k", url=f"https://venue.example/?key={c[18]}", tuple_of=(c[19],))
    log.info("l", proxy=f"socks5://me:{c[20]}@proxy:1080", other=f"http://{c[21]}:x@proxy")
    log.info("m", url=f"wss://venue.example/ws?listenKey={c[22]}&x=1#access_token={c[23]}")
    log.info("n", environment={"AWS_SECRET_ACCESS_KEY": c[24], "INGESTOR__X__PASSWORD": c[25]})
    log.info("o", command=f"curl -H 'X-MBX-APIKEY: {c[26]}' -H 'OK-ACCESS-SIGN: {c[27]}'")
    log.info("p", headers=[("Cookie", c[28]), ("Set-Cookie", c[29])])
    log.info("q", jaas=f'required username="me" password="{c[30]}";')
    log.info("r", raw=f"Authorization: Basic {c[31]}".encode(), text=f"private_key={c[32]}")
    log.info("s", token=f"eyJhbGciOiJub25lIn0.{c[33]}.{c[34]}")
    try:
        try:
            raise ConnectionError(f"CONNECT to http://u:{c[35]}@proxy:3128 failed")
        except ConnectionError as failure:
            raise RuntimeError(f"sasl_plain_password={c[36]!r}") from failure
    except RuntimeError as failure:
        log.error("t", cause=repr(failure), exc_info=failure)
        failure.add_note(f"apiSecret={c[37]}")
        log.error("u", exc_info=ExceptionGroup("several", [failure]))
    logging.getLogger("websockets").error("GET /ws?signature=%s HTTP/1.1", c[38])
    log.info("v", pem=f"-----BEGIN PRIVATE KEY-----\n{c[39]}\n-----END PRIVATE KEY-----")


@pytest.mark.parametrize("form", ["json", "console"])
def test_forty_canaries_are_in_no_line(form: str) -> None:
    stream = io.BytesIO()
    known = [CANARIES[number] for number in (13, 14, 15, 19)]
    configure(LogConfig.model_validate({"format": form, "level": "debug"}), known, stream)
    plant(structlog.get_logger())
    text = stream.getvalue().decode()
    assert [one for one in CANARIES if one in text] == []
    assert text.count("***") >= len(CANARIES)


@pytest.mark.parametrize(
    "text",
    [
        "okx:spot:BTC-USDT price=1.5 size=2",
        "wss://venue.example/ws?streams=btcusdt@trade",
        "closed with code 1006",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor(["abcd"]).text(text) == text


def test_short_known_values_are_left() -> None:
    """A password of three letters would star half of the words."""
    assert Redactor(["a", "BTC"]).text("BTC-USDT at a") == "BTC-USDT at a"
