"""Set how to reach Kafka and what to publish there."""

from __future__ import annotations

from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Final

from ingestor.codec import ENCODINGS
from ingestor.model.row_classes import RowClass

STATUS: Final = "status.v1"
INSTRUMENTS: Final = "instruments.v1"
BOOK_SNAPSHOT: Final = "book_snapshot.v1"
LAST: Final = "last.v1"
QUARANTINE: Final = "quarantine.v1"
DEAD_LETTER: Final = "deadletter.v1"
AUXILIARY_TOPICS: Final = (STATUS, INSTRUMENTS, BOOK_SNAPSHOT, LAST, QUARANTINE, DEAD_LETTER)
COMPACTED: Final = frozenset({INSTRUMENTS, BOOK_SNAPSHOT, LAST})
CLAIMS: Final = "claims.v1"  # of a cluster's workers; `ingestor cluster init` creates it


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Everything about the producer. Times in ms where Kafka's own settings are.

    partitions: of the tick topics and book snapshots, when they are created here; a topic that
    exists keeps its own count. retention_ms: of the topics that are not compacted; -1 = for ever.
    more_topics: others that get side records; they exist already.
    security: passed on to aiokafka (security_protocol, sasl_*), the TLS context apart.
    max_batch_bytes: of one request's part for one partition, before compression.
    """

    bootstrap_servers: str
    topic_prefix: str = "md."
    encoding: str = "json"
    partitions: int = 8
    replication_factor: int = -1  # the broker's default
    retention_ms: int = 7 * 86_400_000
    create_topics: bool = True
    compression: str | None = "lz4"
    max_batch_bytes: int = 512 << 10
    request_timeout_ms: int = 20_000
    retry_backoff_ms: int = 100
    metadata_max_age_ms: int = 60_000
    client_id: str = "ingestor"
    more_topics: tuple[str, ...] = ()
    security: dict[str, Any] = field(default_factory=dict, repr=False)  # holds the password
    ssl_context: SSLContext | None = None

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding {self.encoding!r} is none of {', '.join(ENCODINGS)}")
        if self.partitions < 1:
            raise ValueError("a topic has at least one partition")

    def topic(self, name: str) -> str:
        """Return the full name of one of the topics above."""
        return self.topic_prefix + name

    def tick_topic(self, row_class: RowClass) -> str:
        return self.topic_prefix + row_class.topic

    def client_options(self) -> dict[str, Any]:
        """Return the options of every aiokafka client of this process."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            "retry_backoff_ms": self.retry_backoff_ms,
            "metadata_max_age_ms": self.metadata_max_age_ms,
            "ssl_context": self.ssl_context,
            **self.security,
        }

    def consumer_options(self) -> dict[str, Any]:
        """Return the same without the address, which a `Consumer` takes for itself."""
        options = self.client_options()
        del options["bootstrap_servers"]
        return options
