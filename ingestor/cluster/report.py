"""Join the group's members with the claims, for `ingestor cluster status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ingestor.cluster.store import Cluster


def report_of(cluster: Cluster, members: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the state of all shards and members.

    Args:
        cluster: what the topics have.
        members: the shards that the group gives to each member.
    """
    given = {shard: member for member, shards in members.items() for shard in shards}
    shards = []
    for shard, log in cluster.shards.items():
        claim = cluster.claims[shard]
        shards.append(
            {
                "shard": shard,
                "state": claim.state,
                "owner": claim.owner.member if claim.owner else None,
                "session": claim.owner.session if claim.owner else None,
                "given_to": given.get(shard),
                "since_ms": claim.since_ms,
                "revision": claim.revision,
                "planned_revision": log.revision,
                "connections": len(log.records),
                "reason": claim.refused.reason if claim.refused else None,
            }
        )
    owned = Counter(str(shard["owner"]) for shard in shards if shard["owner"])
    names = sorted({*members, *owned})
    return {
        "cluster": cluster.name,
        "revision": cluster.revision,
        "members": [
            {
                "member": name,
                "in_group": name in members,
                "shards": owned[name],
                "given": len(members.get(name, ())),
                "where": cluster.claims.where.get(name, ""),
            }
            for name in names
        ],
        "not_live": [shard["shard"] for shard in shards if shard["state"] != "live"],
        "half_written": [
            shard
            for shard, log in cluster.shards.items()
            if (log.records or log.closing) and not log.is_whole
        ],
        "shards": shards,
    }


def report_text(found: Mapping[str, Any]) -> str:
    """Return the report for people."""
    shards = found["shards"]
    live = len(shards) - len(found["not_live"])
    lines = [
        f"cluster {found['cluster']} at revision {found['revision']}: {live} of {len(shards)} live"
    ]
    for item in found["members"]:
        state = "" if item["in_group"] else ", not in the group"
        where = f" at {item['where']}" if item["where"] else ""
        lines.append(
            f"  {item['member']}{where}: {item['shards']} shards, given {item['given']}{state}"
        )
    for shard in shards:
        if shard["state"] != "live":
            reason = f": {shard['reason']}" if shard["reason"] else ""
            owner = f" by {shard['owner']}" if shard["owner"] else ""
            lines.append(f"  shard {shard['shard']} is {shard['state']}{owner}{reason}")
    if found["half_written"]:
        which = ", ".join(map(str, found["half_written"][:10]))
        lines.append(f"  half-written plan in shards {which}: run `ingestor cluster apply` again")
    return "\n".join(lines)
