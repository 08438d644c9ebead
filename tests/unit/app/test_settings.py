"""ingestor.app.settings: nothing of the configuration is lost on its way to the parts."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
import trustme

from ingestor.app import settings
from ingestor.books.settings import BookSettings
from ingestor.config.model import Config, FeedConfig, KafkaConfig
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.errors import ConfigError
from ingestor.recording.segments import RecorderSettings
from ingestor.sinks.kafka.overload import Budget


def test_the_defaults_of_the_parts_are_those_of_the_configuration() -> None:
    """One home of defaults: the parts' own, for those who use them alone, must not differ."""
    config = Config.model_validate({"recorder": {"path": "x"}})
    servers = config.kafka.bootstrap_servers
    kafka = settings.kafka_settings(config.kafka)
    assert kafka == KafkaSettings(servers, security={"security_protocol": "PLAINTEXT"})
    assert settings.budget(config.budget) == Budget()
    assert settings.book_settings(config.books) == BookSettings()
    assert config.recorder is not None
    assert settings.recorder_settings(config.recorder) == RecorderSettings(Path("x"))


def test_sasl_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    mine = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "password").write_text("canary\n")
    config = KafkaConfig(
        bootstrap_servers="kafka.example:9093",
        security_protocol="SASL_SSL",
        sasl_username="me",
        sasl_password_file=tmp_path / "password",
        ssl_cafile=tmp_path / "ca.pem",
        ssl_certfile=tmp_path / "cert.pem",
        ssl_keyfile=tmp_path / "key.pem",
        compression="none",
    )
    kafka = settings.kafka_settings(config)
    assert kafka.security == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "me",
        "sasl_plain_password": "canary",
    }
    assert "canary" not in repr(kafka)
    assert kafka.compression is None
    context = kafka.ssl_context
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("key", ["ssl_cafile", "ssl_certfile"])
def test_a_file_that_is_no_certificate_is_one_line(tmp_path: Path, key: str) -> None:
    path = tmp_path / "no.pem"
    path.write_text("nothing")
    options = {"security_protocol": "SSL", key: path}
    if key == "ssl_certfile":
        options["ssl_keyfile"] = path
    with pytest.raises(ConfigError, match=rf"^kafka\.{key}: {path}: can't be used: \S.*$"):
        settings.kafka_settings(KafkaConfig.model_validate(options))


def test_routes_and_secrets() -> None:
    feed = {
        "venue": "okx",
        "symbols": ["*"],
        "transport": "websockets",
        "url": "wss://mirror.example",
        "rest_url": "https://rest.example",
        "proxy": "http://u:canary@proxy:3128",
        "compression": True,
        "source_addresses": ["192.0.2.1"],
        "streams_per_connection": 7,
    }
    route = settings.route(FeedConfig.model_validate(feed))
    assert route.origins == ("wss://mirror.example",)
    assert route.rest_origin == "https://rest.example"
    assert (route.transport, route.permessage_deflate) == ("websockets", True)
    assert (route.streams_per_connection, route.source_addresses) == (7, ("192.0.2.1",))
    assert route.proxy == "http://u:canary@proxy:3128"
    assert "canary" not in repr(route)
    config = Config.model_validate({"feeds": [feed], "kafka": {"sasl_password": "secret"}})
    secrets = settings.secrets(config)
    assert {"secret", "http://u:canary@proxy:3128", "canary"} <= set(secrets)
    assert base64.b64encode(b"u:canary").decode() in secrets
    assert settings.secrets(Config()) == []
