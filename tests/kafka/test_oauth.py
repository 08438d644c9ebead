"""SASL/OAUTHBEARER against a real broker, which takes unsigned tokens as Kafka's own tests do."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.app import ingestor as app
from tests.conftest import Call
from tests.e2e.processes import environment, simulated_venue
from tests.kafka.broker import KafkaBroker

_MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker(kafka_tools: None) -> Iterator[KafkaBroker]:
    offered = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config": (
            f'{_MODULE} required unsecuredLoginStringClaim_sub="broker";'
        ),
    }
    with KafkaBroker(offered, sasl=True) as broker:
        yield broker


def unsigned(subject: str, lives_s: float) -> str:
    """Return a JSON Web Token without a signature (RFC 7515 appendix A.5)."""
    now_s = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now_s - 5, "exp": now_s + lives_s})
    texts = [json.dumps(part).encode() for part in parts]
    return ".".join(base64.urlsafe_b64encode(text).rstrip(b"=").decode() for text in texts) + "."


@pytest.mark.parametrize("lives_s", [600.0, -60.0], ids=["valid", "expired"])
def test_rows_are_published_with_a_token(
    call: Call,
    tmp_path: Path,
    broker: KafkaBroker,
    lives_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lives_s < 0:
        monkeypatch.setattr(app, "CONNECT_KAFKA_S", 2.0)
    token = unsigned("ingestor", lives_s)
    (tmp_path / "token").write_text(f"{token}\n")
    settings = {
        "BOOTSTRAP_SERVERS": broker.sasl_bootstrap_servers,
        "TOPIC_PREFIX": f"oauth{uuid.uuid4().hex[:8]}.",
        "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SASL_MECHANISM": "OAUTHBEARER",
        "SASL_TOKEN_FILE": str(tmp_path / "token"),
    }
    env = environment(tmp_path, **{f"INGESTOR__KAFKA__{k}": v for k, v in settings.items()})
    with simulated_venue(symbols=1, rate_per_s=20) as venue:
        file = tmp_path / "ingestor.toml"
        file.write_text(venue.toml())
        done = call("run", str(file), "--seconds", "1", "--json", env=env)
    if lives_s > 0:
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["rows_acked"] == result["rows_appended"] > 0
    else:
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    for secret in (token, token.split(".")[1]):
        assert secret not in done.stdout + done.stderr
