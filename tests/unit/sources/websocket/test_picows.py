"""The parts of picows that it doesn't document; tests/network has the transport's behavior."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from ingestor.sources.websocket.picows import REVIEWED_VERSION

LOCK = Path(__file__).parents[4] / "requirements.lock"


def test_the_locked_version_is_the_one_whose_private_parts_were_reviewed() -> None:
    """After an upgrade: read `WSProtocol`, `WSCloseHandshake` and `parse_url`, then change the
    constant."""
    locked = re.findall(r"^picows==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert locked == [REVIEWED_VERSION] == [version("picows")]
