"""Options of librdkafka for the same cluster that aiokafka's clients use."""

from __future__ import annotations

from typing import Any

from ingestor.app import settings
from ingestor.config.load import kafka_password
from ingestor.config.model import KafkaConfig
from ingestor.model.errors import ConfigError


def librdkafka_options(config: KafkaConfig) -> dict[str, Any]:
    """Return how librdkafka reaches Kafka. Raises ConfigError for what it can't do here."""
    options: dict[str, Any] = {
        "bootstrap.servers": config.bootstrap_servers,
        "security.protocol": config.security_protocol.lower(),
        "log_level": 3,
        "reconnect.backoff.max.ms": 1_000,
    }
    if config.security_protocol.startswith("SASL"):
        if config.sasl_mechanism == "OAUTHBEARER":
            raise ConfigError(
                "OAUTHBEARER can't be used for a cluster yet",
                where="kafka.sasl_mechanism",
                hint="use SCRAM-SHA-512, or a client certificate",
            )
        options |= {
            "sasl.mechanism": config.sasl_mechanism,
            "sasl.username": config.sasl_username,
            "sasl.password": kafka_password(config),
        }
    files = {
        "ssl.ca.location": config.ssl_cafile,
        "ssl.certificate.location": config.ssl_certfile,
        "ssl.key.location": config.ssl_keyfile,
    }
    if config.security_protocol.endswith("SSL"):
        settings.kafka_settings(config)  # says what is wrong with the files
        options |= {key: str(path.expanduser()) for key, path in files.items() if path is not None}
    return options
