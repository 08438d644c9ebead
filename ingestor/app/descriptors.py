"""Share the process's file descriptors between venue connections and everything else."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

# Kafka (a connection to each broker, twice while a producer is replaced), HTTP clients, files of
# recordings and caches, pipes and the loop's own. Venue connections never take these.
RESERVE: Final = 100
LIMIT_MAX: Final = 1 << 20  # enough for any plan; some containers have a hard limit of 2^30
_OPEN: Final = Path("/proc/self/fd")


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
    if soft == resource.RLIM_INFINITY:
        return LIMIT_MAX
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as failure:  # macOS allows less than its hard limit
            log.warning("descriptors.not_raised", reason=str(failure), limit=soft)
            return soft
    return max(soft, wanted)


def descriptor_budget(planned: int, connected: int = 0) -> int:
    """Raise the limit of open files; return how many venue connections may be open at a time.

    What is open already counts against the reserve. A plan that wants more is reported once: its
    connections have to wait for each other.

    Args:
        planned: venue connections of the plan.
        connected: venue connections that are open now.

    Returns:
        The bound, at least 1.
    """
    limit = raise_limit()
    others = max(RESERVE, _open_now() - connected + RESERVE // 2)
    bound = max(limit - others, 1)
    if planned > bound:
        remedy = f"raise ulimit -n to {planned + others:,}, or split the plan"
        log.warning(
            "descriptors.short", limit=limit, planned=planned, open_at_most=bound, remedy=remedy
        )
    return bound


def _open_now() -> int:
    try:
        return sum(1 for _ in _OPEN.iterdir())
    except OSError:  # no /proc
        return 0
