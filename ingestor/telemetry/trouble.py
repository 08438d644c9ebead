"""Judge a snapshot: what is wrong now, and what was lost since the start. Pure.

The terminal, the status page and `ingestor top` show the same words.
"""

from __future__ import annotations

from typing import Final

from ingestor.telemetry.status import Phase, Status

BUDGET_FULL: Final = 0.75  # of the fullest bound
DOWN_SHARE: Final = 0.1  # of the planned connections
DOWN_AFTER_S: Final = 60.0  # from the start: connections are opened at the venues' pace


def wrong_now(status: Status) -> list[str]:
    """Return what an operator must act on, worst first; empty when all is well."""
    found = []
    if status.kafka_up is False:
        found.append("Kafka acknowledges nothing")
    fullest, share = status.fullest
    if share >= BUDGET_FULL:
        found.append(f"queue {share:.0%} full ({fullest})")
    if status.unaccounted:
        found.append(f"{abs(status.unaccounted):,} unaccounted")
    if status.phase is Phase.PAUSED:
        found.append("reading is paused: the sink is behind")
    found += [f"Kafka refuses {held}" for held in status.held]
    planned = sum(status.connections.values())
    down = planned - status.connected
    if status.uptime_s >= DOWN_AFTER_S and down > DOWN_SHARE * planned:
        found.append(f"{down:,} of {planned:,} connections are down")
    if status.recorder == "failed":
        found.append(f"the recorder has failed: {status.recorder_reason}")
    return found + status.notes


def losses(status: Status) -> list[str]:
    """Return what was dropped, refused or missed since the start, each with its count."""
    counts = (
        (status.shed, "shed"),
        (status.dead_lettered, "dead-lettered"),
        (status.fenced, "fenced"),
        (status.rejected, "frames rejected"),
        (status.gaps, "gaps"),
    )
    return [f"{count:,} {name}" for count, name in counts if count]
