"""Records of the claims topic: claims, commands, and what is none of ours."""

from __future__ import annotations

from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.claims_log import ClaimsLog
from ingestor.cluster.records import CLUSTER_KEY, COMMAND_PREFIX, claim_key, claim_record
from ingestor.kafka.settings import KafkaSettings


def test_each_record_goes_where_it_belongs() -> None:
    claims: list[tuple[Claim, int]] = []
    commands: list[tuple[bytes, bytes | None, int]] = []
    log = ClaimsLog(
        KafkaSettings("127.0.0.1:1"),
        "md.claims.v1",
        lambda *found: claims.append(found),
        lambda *found: commands.append(found),
    )
    claim = Claim(4, Life("node7", "01"), ClaimState.LIVE, 2)
    log._take(claim_key(4), claim_record(claim), 7)
    log._take(CLUSTER_KEY, b"{}", 8)
    log._take(COMMAND_PREFIX + b"node7", b"{}", 9)
    log._take(b"5", b"garbage", 10)
    log._take(None, b"", 11)
    assert claims == [(claim, 7)]
    assert commands == [(b"command:node7", b"{}", 9)]
