from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from ingestor.testbed.certificate import make_certificate


@pytest.mark.parametrize("host", ["127.0.0.1", "venue.example", "::1"])
def test_a_certificate_is_trusted_and_its_key_is_gone(host: str, tmp_path: Path) -> None:
    context, path = make_certificate(tmp_path, host)
    assert list(tmp_path.iterdir()) == [path]
    assert context.protocol is ssl.PROTOCOL_TLS_SERVER
    known: Any
    [known] = ssl.create_default_context(cafile=path).get_ca_certs()
    names = {name for _, name in known["subjectAltName"]}
    assert {"localhost", "127.0.0.1"} < names
    assert len(names) == (3 if host != "venue.example" else 4)
