"""Light members of a real group, in one process: they claim nothing and say what they are given.

Usage: python -m benchmarks.peers.group_members SERVERS PREFIX NAME...

Each event is a JSON line on standard output, with the machine's monotonic time. SIGTERM leaves.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence

from ingestor.cluster.membership import Group
from ingestor.cluster.records import SHARDS
from ingestor.config.model import Config


class LightMember:
    """Prints what the group says."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _say(self, event: str, shards: Sequence[int]) -> None:
        line = {"t": time.monotonic(), "member": self._name, "event": event, "shards": [*shards]}
        print(json.dumps(line), flush=True)

    async def assigned(self, shards: Sequence[int]) -> None:
        """The group gives shards to this member."""
        self._say("assigned", shards)

    async def revoked(self, shards: Sequence[int]) -> None:
        """The group takes shards away."""
        self._say("revoked", shards)

    async def lost(self, shards: Sequence[int]) -> None:
        """The group may have given shards away."""
        self._say("lost", shards)

    def record(self, _shard: int, _key: bytes, _value: bytes | None) -> None:
        """There are none."""

    def at_end(self, _shard: int) -> None:
        """There are no records."""


async def main(servers: str, prefix: str, names: Sequence[str]) -> None:
    """Be members until SIGTERM."""
    config = Config.model_validate(
        {
            "kafka": {"bootstrap_servers": servers, "topic_prefix": prefix},
            "cluster": {"name": "light"},
        }
    )
    groups = [(Group(config, prefix + SHARDS, name), LightMember(name)) for name in names]

    def leave() -> None:
        for group, _ in groups:
            group.leave()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
    await asyncio.gather(*(group.run(member) for group, member in groups))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
