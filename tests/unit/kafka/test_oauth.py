"""Tokens for OAUTHBEARER: read at each connection, from a file or a command, and never told."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError

from ingestor.app.settings import kafka_settings
from ingestor.config.model import KafkaConfig
from ingestor.kafka import oauth
from ingestor.kafka.oauth import REUSE_S, TokenProvider

TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."


async def test_a_file_is_read_again_once_its_token_is_old(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    now_s = 0.0
    provider = TokenProvider(file, clock_s=lambda: now_s)
    assert await provider.token() == TOKEN
    file.write_text("second")
    assert await provider.token() == TOKEN
    now_s = REUSE_S
    assert await provider.token() == "second"


async def test_a_command_prints_the_token() -> None:
    provider = TokenProvider(None, (sys.executable, "-c", f"print('{TOKEN}')"))
    assert await provider.token() == TOKEN


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"two words", b"a\r\nInjected: x", b"\xff\xfe", b"a\x01b", b"x" * 70_000],
)
async def test_what_is_no_token_fails_the_connection(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(KafkaConnectionError, match="token file") as caught:
        await TokenProvider(file).token()
    if content.strip():
        assert content.decode("latin-1")[:8] not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/nowhere/at-all",), "No such file"),
        ((sys.executable, "-c", "print('secret'); raise SystemExit(3)"), "status 3"),
        ((sys.executable, "-c", "print('x' * 10_000_000)"), "more than"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "no answer"),
    ],
)
async def test_a_command_that_fails(
    command: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in command[-1]:
        monkeypatch.setattr(oauth, "COMMAND_S", 0.5)
    begun_s = time.monotonic()
    with pytest.raises(KafkaConnectionError, match=reason) as caught:
        await TokenProvider(None, command).token()
    assert "secret" not in str(caught.value)
    assert time.monotonic() - begun_s < 10


async def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(KafkaConnectionError, match="No such file"):
        await TokenProvider(tmp_path / "token").token()


@pytest.mark.parametrize(
    "more", [{}, {"sasl_token_file": "a", "sasl_token_command": ["b"]}], ids=["none", "both"]
)
def test_one_source_of_tokens_is_needed(more: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either sasl_token_file or sasl_token_command"):
        KafkaConfig.model_validate(
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", **more}
        )


def test_the_settings_have_a_provider(tmp_path: Path) -> None:
    config = KafkaConfig.model_validate(
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_token_file": str(tmp_path / "token"),
        }
    )
    options = kafka_settings(config).client_options()
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    assert isinstance(options["sasl_oauth_token_provider"], TokenProvider)
    assert "sasl_plain_password" not in options
