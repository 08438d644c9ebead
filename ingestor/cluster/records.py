"""The records of the plan and of the claims: what they say, as bytes and back.

Pure. Partition `s` of `shards.v1` has the connections of shard `s`, one record each, and a record
`plan` that closes a revision: how many connections there are, and their digest. A reader acts on a
revision only when both agree with what it has read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from ingestor.adapter import BookOffer
from ingestor.adapter.contract import Subscription
from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.model.errors import ConfigError, DecodeError, PlanUnusable
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.sources.live.plan import PlannedConnection, Route
from ingestor.sources.registry import adapter_of, registry

SHARDS: Final = "shards.v1"
PLAN_KEY: Final = b"plan"
CLUSTER_KEY: Final = b"cluster"
COMMAND_PREFIX: Final = b"command:"

Routes = Mapping[tuple[str, str], Route]  # by venue and market: proxies, local addresses
_UNREADABLE: Final = (ValueError, KeyError, TypeError, DecodeError, ConfigError)


@dataclass(frozen=True, slots=True)
class Revision:
    """The closing record of a shard. count: connections of the shard. digest: of their records.

    config: digest of the feeds that the plan was made of.
    """

    revision: int
    count: int
    digest: str
    config: str = ""


def key_of(number: int) -> bytes:
    """Return the key of a connection's record."""
    return b"%d" % number


def digest_of(records: Mapping[bytes, bytes]) -> str:
    """Return the digest of a shard's connections, whatever their order."""
    found = hashlib.sha256()
    for key in sorted(records):
        found.update(b"%d:%d:" % (len(key), len(records[key])) + key + records[key])
    return found.hexdigest()[:32]


def closing_record(revision: int, records: Mapping[bytes, bytes], config: str = "") -> bytes:
    """Return the record that closes a revision of a shard.

    Args:
        revision: Its number.
        records: The shard's connections.
        config: Digest of the feeds.
    """
    closing = Revision(revision, len(records), digest_of(records), config)
    return orjson.dumps(closing)


def read_closing(value: bytes | None) -> Revision | None:
    """Return what a closing record says, None where it can't be read."""
    try:
        fields = orjson.loads(value or b"{}")
        return Revision(
            int(fields["revision"]),
            int(fields["count"]),
            str(fields["digest"]),
            str(fields.get("config", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def connection_record(planned: PlannedConnection, table: InstrumentTable) -> bytes:
    """Return a connection as a record. Proxies and local addresses stay with the worker."""
    offer = planned.offer
    numbers = dict.fromkeys(subscription.instrument for subscription in planned.subscriptions)
    fields: dict[str, Any] = {
        "number": planned.number,
        "venue": planned.venue,
        "market": planned.market,
        "url": planned.url,
        "rest_url": planned.rest_url,
        "transport": planned.route.transport,
        "streams_per_connection": planned.route.streams_per_connection,
        "permessage_deflate": planned.route.permessage_deflate,
        "book": None if offer is None else [offer.depth, offer.speed_ms],
        "why": planned.why,
        "subscriptions": [
            [subscription.symbol, subscription.channel, subscription.stream]
            for subscription in planned.subscriptions
        ],
        "instruments": [table[number].to_json() for number in numbers],
    }
    return orjson.dumps(fields)


def read_connection(value: bytes, table: InstrumentTable, routes: Routes) -> PlannedConnection:
    """Return the connection of a record.

    Args:
        value: the record.
        table: gets its instruments, or new revisions of them.
        routes: of this worker's configuration.

    Raises:
        PlanUnusable: this program can't run it, and why.
    """
    try:
        fields = orjson.loads(value)
        adapter = adapter_of(fields["venue"])
        market = registry().market(fields["venue"], fields["market"])
        instruments = [Instrument.from_json(field) for field in fields["instruments"]]
        numbers = {instrument.symbol: table.add(instrument) for instrument in instruments}
        own = routes.get((fields["venue"], fields["market"]), Route())
        number = int(fields["number"])
        sources = own.source_addresses
        return PlannedConnection(
            number=number,
            adapter=adapter,
            market=fields["market"],
            url=str(fields["url"]),
            rest_url=str(fields["rest_url"]),
            subscriptions=tuple(
                Subscription(numbers[symbol], symbol, channel, stream)
                for symbol, channel, stream in fields["subscriptions"]
            ),
            route=replace(
                own,
                transport=fields["transport"],
                streams_per_connection=fields["streams_per_connection"],
                permessage_deflate=bool(fields["permessage_deflate"]),
            ),
            source_address=sources[number % len(sources)] if sources else None,
            why=str(fields["why"]),
            offer=_offer(market.books, fields["book"]),
        )
    except _UNREADABLE as failure:
        raise PlanUnusable(f"a connection can't be run: {failure}") from failure


def _offer(offers: Iterable[BookOffer], wanted: list[int] | None) -> BookOffer | None:
    if wanted is None:
        return None
    for offer in offers:
        if [offer.depth, offer.speed_ms] == wanted:
            return offer
    raise ValueError(f"no book of {wanted[0]} levels at {wanted[1]} ms")


class ShardLog:
    """Folds the records of one shard, in the order of their partition."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.closing: Revision | None = None
        self.complete: dict[bytes, bytes] | None = None  # the last whole revision
        self.revision = 0  # of `complete`

    def take(self, key: bytes, value: bytes | None) -> bool:
        """Fold in the next record; return whether a whole revision stands here.

        Args:
            key: of the record.
            value: None takes the connection out.
        """
        if key != PLAN_KEY:
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
            return False
        self.closing = read_closing(value)
        if not self.is_whole or self.closing is None:
            return False
        self.complete, self.revision = dict(self.records), self.closing.revision
        return True

    @property
    def is_whole(self) -> bool:
        """Return True if the closing record agrees with the connections before it."""
        closing = self.closing
        return closing is not None and (closing.count, closing.digest) == (
            len(self.records),
            digest_of(self.records),
        )


def claim_key(shard: int) -> bytes:
    """Return the key of a shard's claims."""
    return b"%d" % shard


def claim_record(claim: Claim, where: str = "") -> bytes:
    """Return a claim as a record. where: the worker's address, for people."""
    fields: dict[str, Any] = {
        "shard": claim.shard,
        "member": claim.life.member,
        "session": claim.life.session,
        "state": claim.state.value,
        "revision": claim.revision,
    }
    if claim.over is not None:
        fields["over"] = [claim.over.member, claim.over.session]
    if claim.reason:
        fields["reason"] = claim.reason
    if where:
        fields["where"] = where
    return orjson.dumps(fields)


def read_claim(key: bytes | None, value: bytes | None) -> Claim | None:
    """Return the claim of a record, None for any other record of the topic."""
    if value is None or key is None or not key.isdigit():
        return None
    try:
        fields = orjson.loads(value)
        over = fields.get("over")
        return Claim(
            int(fields["shard"]),
            Life(str(fields["member"]), str(fields["session"])),
            ClaimState(fields["state"]),
            int(fields["revision"]),
            None if over is None else Life(*over),
            str(fields.get("reason", "")),
            str(fields.get("where", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # of a later version, or somebody else's


def transactional_id(cluster: str, life: Life) -> str:
    """Return the name under which a life publishes, and by which it is fenced."""
    return f"{cluster}.{life.member}.{life.session}"
