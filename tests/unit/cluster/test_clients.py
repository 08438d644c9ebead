"""The same cluster for librdkafka as for aiokafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.cluster.clients import librdkafka_options
from ingestor.config.model import KafkaConfig
from ingestor.model.errors import ConfigError


def test_a_plain_broker() -> None:
    options = librdkafka_options(KafkaConfig(bootstrap_servers="127.0.0.1:9092"))
    assert options["bootstrap.servers"] == "127.0.0.1:9092"
    assert options["security.protocol"] == "plaintext"


def test_a_password_that_is_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush\n")
    config = KafkaConfig.model_validate(
        {
            "security_protocol": "SASL_SSL",
            "sasl_username": "me",
            "sasl_password_file": tmp_path / "password",
        }
    )
    options = librdkafka_options(config)
    assert (options["sasl.username"], options["sasl.password"]) == ("me", "hush")
    assert options["sasl.mechanism"] == "SCRAM-SHA-512"


def test_tokens_are_refused_in_words(tmp_path: Path) -> None:
    config = KafkaConfig.model_validate(
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_token_file": tmp_path / "token",
        }
    )
    with pytest.raises(ConfigError, match="OAUTHBEARER can't be used for a cluster yet"):
        librdkafka_options(config)
