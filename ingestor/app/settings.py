"""From the configuration to what each part is told. No part but the application reads `Config`."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ingestor.app.session_history import SessionHistory, history_path
from ingestor.books.settings import BookSettings
from ingestor.config.load import kafka_password
from ingestor.config.model import (
    BooksConfig,
    BudgetConfig,
    CatalogueConfig,
    Config,
    FeedConfig,
    KafkaConfig,
    LimitsConfig,
    RecorderConfig,
    TradesConfig,
)
from ingestor.config.proxy import proxy_secrets
from ingestor.derived.settings import DerivedSettings
from ingestor.kafka.oauth import TokenProvider
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.backoff import Backoff
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.pipeline.backfill import BackfillSettings
from ingestor.recording.segments import RecorderSettings
from ingestor.sinks.kafka.overload import Budget
from ingestor.sources.live.plan import Route
from ingestor.sources.rest.catalog import CatalogSettings
from ingestor.sources.rest.client import RestSettings
from ingestor.sources.rest.resolve import is_named
from ingestor.telemetry.tracing import TracingSettings

_MS: Final = 1_000_000


def kafka_settings(config: KafkaConfig) -> KafkaSettings:
    """Raises ConfigError when the password or a certificate can't be read."""
    return KafkaSettings(
        bootstrap_servers=config.bootstrap_servers,
        topic_prefix=config.topic_prefix,
        encoding=config.encoding,
        partitions=config.partitions,
        replication_factor=config.replication_factor,
        retention_ms=config.retention_ms,
        create_topics=config.create_topics,
        compression=None if config.compression == "none" else config.compression,
        max_batch_bytes=config.max_batch_bytes,
        request_timeout_ms=config.request_timeout_ms,
        security=_security(config),
        ssl_context=_ssl_context(config),
    )


def budget(config: BudgetConfig) -> Budget:
    return Budget(
        bytes_max=config.bytes,
        rows_max=config.rows,
        age_max_s=config.age_max_s,
        low=config.low_mark,
        high=config.high_mark,
        pause_max_s=config.pause_max_s,
    )


def book_settings(config: BooksConfig) -> BookSettings:
    return BookSettings(
        verify=config.verify,
        repairs_per_s=config.repairs_per_s,
        repair_backoff_s=config.repair_backoff_s,
        repair_backoff_max_s=config.repair_backoff_max_s,
        snapshot_timeout_s=config.snapshot_timeout_s,
        held_updates_max=config.held_updates_max,
        levels_max=config.levels_max,
        snapshot_depth=config.snapshot_depth,
    )


def derived_settings_of(
    config: Config, table: InstrumentTable
) -> Callable[[int], DerivedSettings] | None:
    """Return what tells what is derived for an instrument, by its number; None where nothing is.

    config: the first feed that names an instrument decides. table: the instruments.
    """
    feeds = [feed for feed in config.feeds if feed.derived_channels]
    if not feeds:
        return None

    def settings_of(number: int) -> DerivedSettings:
        one = table[number]
        for feed in feeds:
            is_of_market = (feed.venue, feed.market) == (one.venue, one.market)
            if is_of_market and is_named(one, feed.symbols):
                return _derived_settings(feed)
        return DerivedSettings()

    return settings_of


def _derived_settings(feed: FeedConfig) -> DerivedSettings:
    return DerivedSettings(
        candle_intervals_ns=tuple(dict.fromkeys(ms * _MS for ms in feed.candle_intervals_ms)),
        candle_wait_ns=feed.candle_wait_ms * _MS,
        top_levels=feed.book_top_levels,
        top_interval_ns=feed.book_top_interval_ms * _MS,
        top_classes=tuple(map(ROW_CLASSES.of_channel, feed.book_top_channels)),
    )


def recorder_settings(config: RecorderConfig) -> RecorderSettings:
    age_h = config.retention_age_h
    return RecorderSettings(
        path=config.path.expanduser(),
        fsync=config.fsync,
        segment_bytes=config.segment_bytes,
        segment_s=config.segment_s,
        buffer_bytes=config.buffer_bytes,
        retention_age_s=None if age_h is None else age_h * 3600.0,
        retention_bytes=config.retention_bytes,
    )


def tracing_settings(config: Config) -> TracingSettings | None:
    """Return where spans go, None where none are wanted."""
    if config.tracing is None:
        return None
    secret = config.tracing.headers
    return TracingSettings(
        endpoint=config.tracing.endpoint,
        share=config.tracing.share,
        instance=f"{socket.gethostname()}:{os.getpid()}",
        headers={name: value.get_secret_value() for name, value in secret.items()},
    )


def backfill_settings(config: TradesConfig) -> BackfillSettings:
    return BackfillSettings(
        delay_s=config.backfill_delay_s,
        backoff_s=config.backfill_delay_s,
        misses_max=config.backfill_attempts_max,
        trades_max=config.backfill_trades_max,
    )


def catalogue_settings(config: CatalogueConfig) -> CatalogSettings:
    cache_dir = config.cache_dir.expanduser()
    return CatalogSettings(cache_dir, config.ttl_s, rest=rest_settings(config))


def session_history(config: Config, *, publish: bool = True) -> SessionHistory:
    """Return what knows the session before this one. publish: False where Kafka gets nothing."""
    return SessionHistory(session_file(config, publish=publish))


def session_file(config: Config, *, publish: bool = True) -> Path:
    """Return where the last numbers of a session are kept. publish: as of `session_history`."""
    folder = state_dir(config.catalogue)
    prefix = config.kafka.topic_prefix if publish else ""
    feeds = [(feed.venue, feed.market) for feed in config.feeds]
    return history_path(folder, prefix, feeds)


def with_state_dir_of(config: Config, part: str) -> Config:
    """Return the same with a folder of its own for the last session of a part of the plan."""
    folder = state_dir(config.catalogue) / part
    return config.model_copy(
        update={"catalogue": config.catalogue.model_copy(update={"state_dir": folder})}
    )


def state_dir(config: CatalogueConfig) -> Path:
    """Return the folder of the last sessions."""
    return (config.state_dir or config.cache_dir / "sessions").expanduser()


def rest_settings(config: CatalogueConfig) -> RestSettings:
    # A list has a deadline: whoever wants to be left alone for longer is asked later, by the watch.
    backoff = Backoff(base_s=0.5, cap_s=10.0, retry_after_cap_s=5.0)
    return RestSettings(config.timeout_s, backoff=backoff)


def backoff(config: LimitsConfig) -> Backoff:
    return Backoff(base_s=config.backoff_base_s, cap_s=config.backoff_cap_s)


def connects(config: LimitsConfig) -> tuple[float, int] | None:
    """Return (per second, burst) where the configuration overrides the venues, else None."""
    rate = config.connects_per_s
    return None if rate is None else (rate, max(1, int(rate / 10)))


def route(feed: FeedConfig) -> Route:
    return Route(
        origins=(feed.url,) if feed.url else (),
        rest_origin=feed.rest_url,
        transport=feed.transport,
        streams_per_connection=feed.streams_per_connection,
        source_addresses=feed.source_addresses,
        proxy=feed.proxy.get_secret_value() if feed.proxy else None,
        permessage_deflate=feed.compression,
        lines=feed.lines,
    )


def routes(config: Config) -> dict[tuple[str, str], Route]:
    """Return how each venue and market is reached from here; the first feed of one counts."""
    found: dict[tuple[str, str], Route] = {}
    for feed in config.feeds:
        found.setdefault((feed.venue, feed.market), route(feed))
    return found


def secrets(config: Config) -> list[str]:
    """Return every secret of a configuration, for the logs to star. Raises ConfigError."""
    proxies = [feed.proxy.get_secret_value() for feed in config.feeds if feed.proxy]
    forms = [form for proxy in proxies for form in proxy_secrets(proxy)]
    redis_url = config.last.redis_url
    redis = redis_url.get_secret_value() if redis_url else ""
    return [secret for secret in (kafka_password(config.kafka), redis, *forms) if secret]


def _security(config: KafkaConfig) -> dict[str, Any]:
    """Return the options of SASL and TLS by aiokafka's names."""
    options: dict[str, Any] = {"security_protocol": config.security_protocol}
    if not config.security_protocol.startswith("SASL"):
        return options
    if config.sasl_mechanism == "OAUTHBEARER":
        options |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_oauth_token_provider": TokenProvider(
                config.sasl_token_file, config.sasl_token_command
            ),
        }
    else:
        options |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.sasl_username,
            "sasl_plain_password": kafka_password(config),
        }
    return options


def _ssl_context(config: KafkaConfig) -> ssl.SSLContext | None:
    """Certificates and host names are verified; there is no switch that turns it off."""
    if not config.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=_text(config.ssl_cafile))
    except (OSError, ssl.SSLError) as failure:
        raise _unusable("ssl_cafile", config.ssl_cafile, failure) from None
    if config.ssl_certfile is not None:
        try:
            context.load_cert_chain(config.ssl_certfile.expanduser(), _text(config.ssl_keyfile))
        except (OSError, ssl.SSLError) as failure:
            raise _unusable("ssl_certfile", config.ssl_certfile, failure) from None
    return context


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser())


def _unusable(key: str, path: Path | None, failure: OSError) -> ConfigError:
    reason = getattr(failure, "reason", None) or failure.strerror or "no PEM file"
    return ConfigError(f"can't be used: {reason}", where=f"kafka.{key}: {path}")
