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
    owned = Counter(str(one["owner"]) for one in shards if one["owner"])
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
                "where": cluster.where.get(name, ""),
            }
            for name in names
        ],
        "not_live": [one["shard"] for one in shards if one["state"] != "live"],
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
    for one in found["members"]:
        state = "" if one["in_group"] else ", not in the group"
        where = f" at {one['where']}" if one["where"] else ""
        lines.append(
            f"  {one['member']}{where}: {one['shards']} shards, given {one['given']}{state}"
        )
    for one in shards:
        if one["state"] != "live":
            reason = f": {one['reason']}" if one["reason"] else ""
            owner = f" by {one['owner']}" if one["owner"] else ""
            lines.append(f"  shard {one['shard']} is {one['state']}{owner}{reason}")
    if found["half_written"]:
        which = ", ".join(map(str, found["half_written"][:10]))
        lines.append(f"  half-written plan in shards {which}: run `ingestor cluster apply` again")
    return "\n".join(lines)
