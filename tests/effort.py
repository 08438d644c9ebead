"""How much of what is random, or made up, is tried.

Little in `make test`, and always the same, so that it fails for a change and not by chance.
`tests/long/test_examples.py` runs the same tests with INGESTOR_LONG=1: then much, and at random.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

IS_LONG: Final = os.environ.get("INGESTOR_LONG") == "1"

settings.register_profile(
    "ours",
    max_examples=1_000 if IS_LONG else 50,
    derandomize=not IS_LONG,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ours")


def tried(short: int, long: int, *, steps: int = 50) -> settings:
    """So many examples of a property in `make test`, and so many in the long suite.

    Args:
        short: examples in `make test`.
        long: examples in the long suite.
        steps: of an example of a state machine.
    """
    return settings(max_examples=long if IS_LONG else short, stateful_step_count=steps)
