"""A DNS server that leaves a name unanswered, asked through the system's own resolver."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A network with nothing but loopback, and other files in place of the system's, seen by us alone.
SETUP = """
ip link set lo up &&
mount --bind {folder}/resolv.conf /etc/resolv.conf &&
mount --bind {folder}/nsswitch.conf /etc/nsswitch.conf &&
exec {command}
"""


def namespaces(command: str, folder: Path) -> list[str]:
    """Return a command line that runs `command` where DNS is our own server."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.77\n")
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    script = SETUP.format(folder=folder, command=command)
    return ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", script]


@pytest.mark.rows("I6", "X10")
def test_a_name_that_hangs_holds_up_nobody_and_not_the_end(tmp_path: Path) -> None:
    missing = [tool for tool in ("unshare", "ip", "mount") if shutil.which(tool) is None]
    if missing or subprocess.run(namespaces("true", tmp_path), check=False).returncode:
        pytest.skip(f"no namespaces of our own: {missing or 'not permitted'}")
    command = f"{sys.executable} -m tests.network.hanging_dns"
    with subprocess.Popen(
        namespaces(command, tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        begun_s = time.monotonic()
        assert process.wait(timeout=30.0) == 0
    assert time.monotonic() - begun_s < 8.0  # the lookups that hang take 10 and more
    assert all(took_s < 8.0 for took_s in said["took_s"].values()), said
    assert said["foreseen"]
    assert said["failure"].endswith("no answer from DNS within 5 s")
    assert 1 <= said["threads"] <= 2
