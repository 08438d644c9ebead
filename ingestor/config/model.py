"""The configuration: frozen models, and the only home of defaults.

`ingestor.config.load` reads them from a TOML file and the environment; docs/configuration.md is
generated from the docstrings of the fields. Names end in their unit. Relative paths start at the
working directory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SecretStr,
    StringConstraints,
    model_validator,
)
from pydantic_core import CoreSchema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ingestor.config.proxy import check_proxy
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.model.suggest import nearest

ENV_PREFIX: Final = "INGESTOR__"
ENV_DELIMITER: Final = "__"
MIB: Final = 1 << 20


def is_loopback(host: str) -> bool:
    """Return True if a host name or address can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def split_address(address: str) -> tuple[str, int]:
    """Return (host, port) of `host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    host = host.strip("[]") if host.startswith("[") else host
    well_formed = colon and re.fullmatch(r"[\w.:-]+", host, re.ASCII) and port.isdecimal()
    if not well_formed or not 0 < int(port) < 65_536:
        raise ValueError("must be host:port")  # without the text: it may hold a password
    return host, int(port)


def _addresses(text: str) -> str:
    for part in text.split(","):
        split_address(part.strip())
    return text


def _channel(name: str) -> str:
    if name not in ROW_CLASSES.channels:
        raise ValueError(f"unknown value {name!r:.60}; {nearest(name, ROW_CLASSES.channels)}")
    return name


class _ChannelSchema:
    """Names the channels in the JSON Schema as of when it is asked for."""

    @staticmethod
    def __get_pydantic_json_schema__(_core: CoreSchema, _handler: GetJsonSchemaHandler) -> Any:
        return {"enum": list(ROW_CLASSES.channels), "type": "string"}


def _ip_address(text: str) -> str:
    ip_address(text)
    return text


def _proxy(url: SecretStr) -> SecretStr:
    check_proxy(url.get_secret_value())
    return url


def _origin(schemes: Sequence[str]) -> AfterValidator:
    """A scheme and a host: paths belong to the venue, and secrets don't belong into addresses."""

    def check(url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if "@" in parts.netloc or parts.query or parts.path.strip("/"):
            raise ValueError("must be a scheme, a host and a port alone")
        _ = parts.port  # raises ValueError when it is none
        return url.rstrip("/")

    return AfterValidator(check)


Name = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]
Symbol = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f]{1,64}$")]
Addresses = Annotated[str, AfterValidator(_addresses)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
Channel = Annotated[str, AfterValidator(_channel), _ChannelSchema]
Count = Annotated[int, Field(gt=0)]
Bytes = Annotated[int, Field(ge=1024)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )


class KafkaConfig(Section):
    """The cluster, and how records are written to it."""

    bootstrap_servers: Addresses = "127.0.0.1:9092"
    """`host:port`, or several of them with commas between."""
    topic_prefix: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{0,64}$")] = "md."
    """What every topic's name begins with: `md.` gives `md.trades.v1`."""
    encoding: Literal["json", "binary"] = "json"
    """`json`: one record per venue event; `binary`: one per flush and partition."""
    partitions: Annotated[int, Field(ge=1, le=1024)] = 8
    """Of each topic that is created. An instrument stays in one partition."""
    replication_factor: Annotated[int, Field(ge=-1, le=16)] = -1
    """Of each topic that is created; -1 is the broker's default."""
    compression: Literal["lz4", "zstd", "snappy", "gzip", "none"] = "lz4"
    """Of record batches."""
    acks: Literal["all"] = "all"
    """Only `all`: the producer is idempotent and nothing may be lost unseen."""
    max_batch_bytes: Annotated[int, Field(ge=262_144, le=16 * MIB)] = 524_288
    """Largest record batch before compression; not above the broker's `message.max.bytes`."""
    request_timeout_ms: Annotated[int, Field(ge=1000, le=300_000)] = 20_000
    """How long the broker may take to answer one request."""
    create_topics: bool = True
    """Create missing topics; where the broker or its ACLs forbid it, they must exist."""
    retention_ms: Annotated[int, Field(ge=-1)] = 7 * 24 * 3_600_000
    """Of each topic that is created, compacted ones excepted; -1 keeps records for ever."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Unencrypted protocols to another machine need `allow_plaintext`."""
    allow_plaintext: bool = False
    """Permit an unencrypted connection to a broker on another machine."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = (
        "SCRAM-SHA-512"
    )
    """Used with the SASL protocols."""
    sasl_username: str | None = None
    """Used with the SASL protocols."""
    sasl_password: SecretStr | None = None
    """Better kept out of the file: `INGESTOR__KAFKA__SASL_PASSWORD`, or `sasl_password_file`."""
    sasl_password_file: Path | None = None
    """A file that holds the password alone; one line break at its end is left out."""
    sasl_token_file: Path | None = None
    """For OAUTHBEARER: a file that holds the access token alone. It is read at each connection, so
    that whoever keeps it fresh need tell nobody."""
    sasl_token_command: tuple[str, ...] = ()
    """For OAUTHBEARER: a program and its arguments that print the access token; no shell."""
    ssl_cafile: Path | None = None
    """Certificates to trust (PEM) instead of the system's."""
    ssl_certfile: Path | None = None
    """Our own certificate (PEM), where the broker asks for one."""
    ssl_keyfile: Path | None = None
    """The key of `ssl_certfile` (PEM)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        hosts = [split_address(part.strip())[0] for part in self.bootstrap_servers.split(",")]
        remote = [host for host in hosts if not is_loopback(host)]
        if remote and not self.security_protocol.endswith("SSL") and not self.allow_plaintext:
            raise ValueError(
                f"security_protocol {self.security_protocol} to {remote[0]} is unencrypted: "
                "use SSL or SASL_SSL, or set allow_plaintext = true"
            )
        if self.sasl_password and self.sasl_password_file:
            raise ValueError("sasl_password and sasl_password_file exclude each other")
        if self.sasl_mechanism == "OAUTHBEARER" and self.security_protocol.startswith("SASL"):
            if bool(self.sasl_token_file) == bool(self.sasl_token_command):
                raise ValueError(
                    "sasl_mechanism OAUTHBEARER needs either sasl_token_file or sasl_token_command"
                )
            return self._with_whole_certificate()
        has_password = self.sasl_password or self.sasl_password_file
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and has_password):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs sasl_username and "
                "sasl_password or sasl_password_file"
            )
        return self._with_whole_certificate()

    def _with_whole_certificate(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile belong together")
        return self


class BatchConfig(Section):
    """When columns are sealed and handed to Kafka: at whichever comes first."""

    rows_max: Annotated[int, Field(ge=1, le=1_000_000)] = 4_000
    """Rows in a batch: trades, quotes and price levels."""
    linger_ms: Annotated[float, Field(ge=0, le=1000)] = 32.0
    """The longest wait of a batch's oldest row: while the loop has 0.8 of a core or more."""
    linger_min_ms: Annotated[float, Field(ge=0, le=1000)] = 0.5
    """Its wait while the loop has time to spare, up to 0.3 of a core: the price of batching in
    latency. The same as `linger_ms`: a fixed wait, for fewer and larger requests."""


class BudgetConfig(Section):
    """The memory that unacked rows may take, and what happens as it fills (docs/operations.md)."""

    bytes: Bytes = 256 * MIB
    """Byte budget of the process for rows that Kafka has not acked."""
    rows: Count = 8_000_000
    """Budget in rows: a backlog takes time to work off, whatever its size."""
    age_max_s: Seconds = 300.0
    """Budget in time: how long the oldest row may wait."""
    low_mark: Fraction = 0.25
    """Share of the budget from which quotes are conflated, and at which reading resumes."""
    high_mark: Fraction = 0.75
    """Share of the budget from which sockets are not read."""
    pause_max_s: Seconds = 15.0
    """Longest pause of reading; below the venues' ping timeouts. After it rows are shed."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_mark >= self.high_mark:
            raise ValueError("low_mark must be below high_mark")
        return self


class BooksConfig(Section):
    """Order books: their verification, repair and snapshots."""

    verify: bool = True
    """Check books by checksum, against the venue's quotes, or against REST images."""
    audit_interval_s: Annotated[float, Field(ge=0, le=86_400)] = 5.0
    """Time between two comparisons with a REST image, of one book after the other, where nothing on
    a venue's sockets proves a book; 0 = none. Needs `verify`."""
    snapshot_interval_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Time between two images of a book on the compacted topic; 0 = only after each RESET."""
    snapshot_depth: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Levels a side of such an image."""
    repairs_per_s: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Repairs that may start each second, per venue."""
    repair_backoff_s: Seconds = 1.0
    """Wait before an instrument's second repair; doubles with each further one."""
    repair_backoff_max_s: Seconds = 60.0
    """Longest such wait."""
    snapshot_timeout_s: Seconds = 10.0
    """How long a snapshot that was asked for may take."""
    levels_max: Annotated[int, Field(ge=100)] = 100_000
    """Levels a side that are kept of a book; deeper ones are removed, and consumers told so."""
    held_updates_max: Count = 10_000
    """Book updates of one instrument held while its snapshot is on the way."""


class TradesConfig(Section):
    """Trades that were lost."""

    backfill: bool = True
    """Fetch lost trades over REST where the venue gives them."""
    backfill_delay_s: Seconds = 1.0
    """Wait before the first request: a venue's history lags behind its streams."""
    backfill_attempts_max: Annotated[int, Field(ge=1, le=100)] = 8
    """Requests in a row that may bring nothing; then what is missing is declared as unfilled."""
    backfill_trades_max: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """A gap of more trades is not filled."""


class StalenessConfig(Section):
    """When the silence of a stream is suspicious. Learned per stream, within these bounds."""

    enabled: bool = True
    """Probe, then reconnect, streams that are silent for too long."""
    floor_s: Seconds = 5.0
    """No stream is suspected sooner."""
    ceiling_s: Seconds = 300.0
    """Every stream is suspected at the latest then."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.floor_s > self.ceiling_s:
            raise ValueError("floor_s must not be above ceiling_s")
        return self


class HttpConfig(Section):
    """Metrics, health and the status page."""

    enabled: bool = True
    """Serve them at all."""
    host: str = "127.0.0.1"
    """Address to listen on; others than loopback need `allow_remote`."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """0 takes a free port."""
    allow_remote: bool = False
    """Permit a `host` that other machines can reach. There is no password."""
    allowed_hosts: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9.:\[\]-]+$")], ...] = ()
    """Names that a request may call us by, beside localhost and addresses (DNS rebinding)."""

    @model_validator(mode="after")
    def _local(self) -> Self:
        if not is_loopback(self.host) and not self.allow_remote:
            raise ValueError(f"host {self.host} is not loopback: set allow_remote = true")
        return self


class LastConfig(Section):
    """The last rows of each instrument, of every class but book levels."""

    enabled: bool = False
    """Publish them to the topic `last`, and serve them at `/last/KEY` of the status port."""
    interval_s: Seconds = 1.0
    """Between two records of one instrument."""
    redis_url: SecretStr | None = None
    """Write them to this Redis too, `redis://host:6379/0`; needs the extra `redis`."""
    redis_prefix: str = "md:last:"
    """Of the keys in Redis; the instrument's key follows."""

    @model_validator(mode="after")
    def _redis(self) -> Self:
        url = self.redis_url.get_secret_value() if self.redis_url else ""
        if url and not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("redis_url must begin with redis://, rediss:// or unix://")
        if url and not self.enabled:
            raise ValueError("redis_url needs enabled = true")
        return self


class RecorderConfig(Section):
    """Recording of raw frames, beside publishing. Without this section nothing is recorded."""

    path: Path
    """Folder of the recordings; made if absent."""
    fsync: Literal["never", "segment", "frame"] = "segment"
    """Force to disk: never, when a segment is finished, or with each compressed frame."""
    segment_bytes: Bytes = 256 * MIB
    """A segment is finished at this compressed size,"""
    segment_s: Seconds = 3600.0
    """or at this age."""
    buffer_bytes: Bytes = 64 * MIB
    """Memory for what is not written yet; beyond it frames are not recorded, and counted."""
    retention_age_h: Annotated[float, Field(gt=0)] | None = None
    """Finished segments older than this are removed."""
    retention_bytes: Bytes | None = None
    """The oldest finished segments are removed beyond this size of all."""
    refill: bool = False
    """After an outage, publish the trades that were shed, from here: see `ingestor refill`."""


class TracingConfig(Section):
    """Spans to an OpenTelemetry collector; needs the extra `otel`. Without this section, none."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")] = (
        "http://localhost:4318"
    )
    """OTLP over HTTP, without `/v1/traces`."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Of the batches to Kafka that get a span; all else is rare and always has one."""
    headers: dict[str, SecretStr] = {}
    """Of each request, such as a token."""


class CatalogueConfig(Section):
    """Instrument metadata from the venues' REST endpoints."""

    cache_dir: Path = Path("~/.cache/market-data-ingestor")
    """Where answers are kept."""
    ttl_s: Annotated[float, Field(ge=0)] = 6 * 3600.0
    """Age at which they are fetched again."""
    timeout_s: Seconds = 20.0
    """How long one request may take."""
    state_dir: Path | None = None
    """Where the last numbers of a session are kept, for the next one to name; without it, the
    folder `sessions` in `cache_dir`."""


class LimitsConfig(Section):
    """Bounds of the process."""

    connections_max: Annotated[int, Field(ge=1, le=100_000)] = 15_000
    """More than these in the plan are refused at the start."""
    connects_per_s: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Connections opened each second per venue and source address, instead of the venue's own
    limit. Lower is always safe; higher is for venues of your own."""
    rest_weight_per_s: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Weight of REST requests sent each second to what a venue counts together, instead of the
    venue's own limit. Lower is always safe, as where other programs use the same address; higher is
    for venues of your own."""
    connect_timeout_s: Seconds = 10.0
    """TCP, TLS and websocket handshake together."""
    receive_buffer_bytes: Annotated[int, Field(ge=4096, le=64 * MIB)] = 256 * 1024
    """The kernel's buffer for each connection without a proxy. A connection to a far venue carries
    about this much in one round trip; `net.core.rmem_max` is the kernel's own bound."""
    backoff_base_s: Seconds = 0.5
    """First window of the random wait before a reconnect; doubles with each failure."""
    backoff_cap_s: Seconds = 60.0
    """Largest such window."""
    startup_grace_s: Seconds = 60.0
    """After this the process counts as ready even if some feeds are not connected."""
    drain_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """How long SIGTERM waits for what was read to be published."""


class LogConfig(Section):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe lines that are written."""
    format: Literal["json", "console"] = "console"
    """`json`: one object a line."""
    per_cause_per_minute: Count = 10
    """Lines of one event and cause; the rest is counted in the next one. A cause that goes on has
    one line a minute after that."""


class FeedConfig(Section):
    """Configure the subscriptions at one market of one venue."""

    venue: Name
    """`ingestor feeds` lists them."""
    market: Name = "spot"
    """One of the venue's markets."""
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1)]
    """Canonical (`BTC-USDT`), the venue's own (`btcusdt`), or patterns (`*-USDT`)."""
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)] = ("trades", "quotes", "book")
    """Some of `trades`, `quotes`, `book`, `funding`, `mark_price`, `open_interest`, `liquidations`,
    `candles`, `instrument_status`, `orders`, as the market has them (`ingestor feeds VENUE`)."""
    depth: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Levels a side of the books, as the venue offers them (`ingestor feeds VENUE --json`); where a
    snapshot comes over REST, of that snapshot."""
    speed_ms: Annotated[int, Field(ge=0, le=60_000)] | None = None
    """Time between two updates of a book, as the venue offers it; 0 is each change at once."""
    candle_intervals_ms: tuple[Annotated[int, Field(ge=100, le=31 * 86_400_000)], ...] = ()
    """Lengths of candles that are made of the trades, counted from the Unix epoch; on the channel
    `candles`, marked `"origin":"trades"`. Needs `trades`."""
    candle_wait_ms: Annotated[int, Field(ge=0, le=600_000)] = 2_000
    """How long after its end a candle waits for trades that are late. One that comes later still
    has its candle published again, for a minute."""
    book_top_levels: Annotated[int, Field(ge=0, le=1_000)] = 0
    """Levels a side of the tops of books on the channels `book_top` and `book_top_last`; 0 = none.
    Needs `book`."""
    book_top_interval_ms: Annotated[int, Field(ge=10, le=86_400_000)] = 1_000
    """Between two of them, counted from the Unix epoch."""
    book_top_channels: tuple[Literal["book_top", "book_top_last"], ...] = (
        "book_top",
        "book_top_last",
    )
    """Where they go: to a topic that has them all, and to a compacted one that has the last one of
    each instrument."""
    transport: Literal["picows", "websockets"] = "picows"
    """`websockets` is slower, but does compression and proxies."""
    url: Annotated[str, _origin(("wss", "ws"))] | None = None
    """Scheme, host and port to use instead of the venue's own."""
    rest_url: Annotated[str, _origin(("https", "http"))] | None = None
    """The same for REST requests."""
    allow_plaintext: bool = False
    """Permit `ws://` and `http://` to another machine."""
    streams_per_connection: Count | None = None
    """Fewer streams on a connection than the venue allows."""
    source_addresses: tuple[IpAddress, ...] = ()
    """Local addresses that connections are spread over; limits count per address."""
    lines: Annotated[int, Field(ge=1, le=2)] = 1
    """Connections that carry each stream. With 2 the first arrival of each row counts, and one of
    them may be lost without a gap. They have different `source_addresses`, if there are two."""
    proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = None
    """URL of a proxy (`websockets` only): `http://`, `https://`, `socks5://`, or `socks5h://` to
    let the proxy resolve names. The system's proxy is never used."""
    compression: bool = False
    """permessage-deflate (`websockets` only)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.transport == "picows" and (self.proxy or self.compression):
            what = "proxy" if self.proxy else "compression"
            raise ValueError(f'{what} needs transport = "websockets"')
        for name, url in (("url", self.url), ("rest_url", self.rest_url)):
            parts = urlsplit(url or "wss://localhost")
            encrypted = parts.scheme in {"wss", "https"} or is_loopback(parts.hostname or "")
            if not encrypted and not self.allow_plaintext:
                raise ValueError(f"{name} {url} is unencrypted: set allow_plaintext = true")
        if len(set(self.channels)) < len(self.channels):
            raise ValueError("channels names one twice")
        if self.candle_intervals_ms and "trades" not in self.channels:
            raise ValueError("candle_intervals_ms needs the channel trades")
        if self.book_top_levels and "book" not in self.channels:
            raise ValueError("book_top_levels needs the channel book")
        return self

    @property
    def derived_channels(self) -> tuple[str, ...]:
        """The channels of rows that are made of those of others."""
        candles = ("candles",) if self.candle_intervals_ms else ()
        return (*candles, *(self.book_top_channels if self.book_top_levels else ()))


class ClusterConfig(Section):
    """Many machines (`ingestor run --cluster`); every worker has the same section."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] = "ingestor"
    """Of the consumer group, and the beginning of each worker's transactional id."""
    member: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{0,64}$")] = ""
    """Of this worker, for people; the host's name and the process's number by default."""
    workers: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many there are. `plan` refuses what would not hold with one fewer."""
    workers_per_egress: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many workers leave through one address: they share what a venue allows it."""
    protocol: Literal["consumer", "classic"] = "consumer"
    """Of the group: `consumer` (KIP-848, Kafka 4.0), or `classic` where a broker has no other."""
    session_timeout_ms: Annotated[int, Field(ge=1000, le=300_000)] = 6_000
    """A worker that is not seen for so long has lost its shards."""
    heartbeat_interval_ms: Annotated[int, Field(ge=100, le=60_000)] = 1_000
    """How often a worker is seen."""
    handover_parallel: Annotated[int, Field(ge=1, le=4096)] = 8
    """Shards that a worker takes over from a living one at a time: each has two connections for
    every stream meanwhile."""
    rates_interval_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 300.0
    """How often a worker tells the rates of its shards (`cluster plan --weights measured`)."""


class Config(BaseSettings):
    """Everything that can be set. Build it with `ingestor.config.load.load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    kafka: KafkaConfig = KafkaConfig()
    batch: BatchConfig = BatchConfig()
    budget: BudgetConfig = BudgetConfig()
    books: BooksConfig = BooksConfig()
    trades: TradesConfig = TradesConfig()
    staleness: StalenessConfig = StalenessConfig()
    http: HttpConfig = HttpConfig()
    last: LastConfig = LastConfig()
    recorder: RecorderConfig | None = None
    tracing: TracingConfig | None = None
    catalogue: CatalogueConfig = CatalogueConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    cluster: ClusterConfig = ClusterConfig()
    feeds: tuple[FeedConfig, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment go before the file's content.

        Args:
            settings_cls: Not used.
            init_settings: The file's content.
            env_settings: The environment.
            dotenv_settings: Not used.
            file_secret_settings: Not used.
        """
        return env_settings, init_settings
