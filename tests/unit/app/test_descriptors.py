"""The limit of open files is raised, and venue connections leave the reserve alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest

_SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from ingestor.app.descriptors import descriptor_budget
import orjson
bound = descriptor_budget(int(sys.argv[3]))
now = resource.getrlimit(resource.RLIMIT_NOFILE)
print(orjson.dumps({"bound": bound, "soft": now[0]}).decode())
"""


def budget(soft: int, hard: int, planned: int) -> tuple[dict[str, Any], str]:
    """Ask in a process of its own, whose limits are these; return the answer and its log."""
    command = [sys.executable, "-c", _SCRIPT, str(soft), str(hard), str(planned)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *log, answer = done.stdout.splitlines()
    return orjson.loads(answer), "\n".join(log) + done.stderr


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    found, log = budget(64, 2_000, 1_000)
    assert found["soft"] == 2_000
    assert 1_000 < found["bound"] <= 1_900
    assert "descriptors.short" not in log


@pytest.mark.rows("P5", "I10")
@pytest.mark.parametrize(("hard", "planned"), [(256, 500), (300, 201)])
def test_a_plan_that_is_too_large_is_reported_and_waits(hard: int, planned: int) -> None:
    found, log = budget(hard, hard, planned)
    assert found == {"bound": hard - 100, "soft": hard}
    assert log.count("descriptors.short") == 1
    assert f"open_at_most={hard - 100}" in log


def test_there_is_always_room_for_one() -> None:
    assert budget(60, 60, 5)[0]["bound"] == 1
