"""Start a worker process: its command, its environment, and the files that it is planned from.

All workers, those started again too, are planned from what the parent saw at its start: a copy of
the configuration file and of the instrument lists. Else a list that changes would leave streams
subscribed twice, or by nobody.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from ingestor.app.settings import state_dir
from ingestor.cluster.control import Dealt
from ingestor.config.model import ENV_DELIMITER, ENV_PREFIX, Config

COMMAND: Final = (sys.executable, "-m", "ingestor")
_FOR_EVER_S: Final = 1e9
_BYTES_MIN: Final = 1024


class Launch:
    """A context manager: within it the copies exist."""

    def __init__(
        self,
        config: Config,
        file: Path,
        count: int,
        command: Sequence[str],
        arguments: Sequence[str] = (),
    ) -> None:
        """Create the launch.

        Args:
            config: of the parent.
            file: that it was read from.
            count: how many workers there are.
            command: how the program is called.
            arguments: what every worker is given besides.
        """
        self._config = config
        self._file = file
        self._count = count
        self._command = command
        self._arguments = arguments
        self._stack = ExitStack()
        self._folder = Path()
        self._memory = -1

    def __enter__(self) -> Self:
        """Take the copies. The file's is kept in memory: it may hold secrets. Raises OSError."""
        with ExitStack() as stack:
            temporary = tempfile.TemporaryDirectory(
                prefix="ingestor-workers-", ignore_cleanup_errors=True
            )
            self._folder = Path(stack.enter_context(temporary))
            cache_dir = self._config.catalogue.cache_dir.expanduser()
            if cache_dir.is_dir():
                unfinished = shutil.ignore_patterns(".*")  # another process may be writing one
                shutil.copytree(cache_dir, self._folder / "frozen", ignore=unfinished)
            else:
                (self._folder / "frozen").mkdir()
            self._memory = _memory_file(self._file.expanduser().read_bytes())
            stack.callback(self._close_memory)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove the copies; may be called twice."""
        self._stack.close()

    def renew(self, text: str, shares: Sequence[Dealt]) -> None:
        """Have workers that start from now on begin with another configuration. Raises OSError.

        Args:
            text: of the configuration file.
            shares: what each worker carries.
        """
        memory = _memory_file(text.encode())
        for index, share in enumerate(shares):
            (self._folder / f"share-{index}.json").write_bytes(msgspec.json.encode(share))
        self._close_memory()
        self._memory = memory
        lists = self._config.catalogue.cache_dir.expanduser() / "instruments"
        names = ["frozen", *map(str, range(self._count))]
        for listed in lists.glob("[!.]*.json"):
            for folder in (self._folder / name / "instruments" for name in names):
                if not (folder / listed.name).exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(listed, folder / listed.name)

    def _close_memory(self) -> None:
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def of(self, index: int) -> tuple[list[str], dict[str, Any]]:
        """Return the command of worker `index`, and the options of its process.

        It writes newer instrument lists into a folder of its own, which its next life doesn't see.
        """
        own = self._folder / str(index)
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(self._folder / "frozen", own, copy_function=os.link)
        options = ["--json", "--worker", f"{index}/{self._count}", *self._arguments]
        dealt = self._folder / f"share-{index}.json"
        if dealt.exists():
            options += ["--dealt", str(dealt)]
        command = [*self._command, "run", f"/dev/fd/{self._memory}", *options]
        environment = worker_environment(self._config, self._count, own)
        folder = state_dir(self._config.catalogue).absolute()
        mine = folder / f"worker-{index}-of-{self._count}"
        environment[f"{ENV_PREFIX}catalogue{ENV_DELIMITER}state_dir".upper()] = str(mine)
        return command, {"env": environment, "pass_fds": (self._memory,)}


def _memory_file(content: bytes) -> int:
    """Return the descriptor of a file in memory, which no other user can read."""
    memory = os.memfd_create("configuration")
    try:
        os.write(memory, content)
    except BaseException:
        os.close(memory)
        raise
    return memory


def worker_environment(config: Config, count: int, cache_dir: Path) -> dict[str, str]:
    """Return a worker's environment: its part of what a machine or venue allows.

    Args:
        config: The configuration.
        count: Number of workers.
        cache_dir: Folder of the instrument lists, which a worker never fetches anew.
    """
    settings: dict[tuple[str, str], object] = {
        ("http", "enabled"): "true",  # on loopback, for the parent
        ("http", "host"): "127.0.0.1",
        ("http", "port"): 0,
        ("budget", "bytes"): max(_BYTES_MIN, config.budget.bytes // count),
        ("budget", "rows"): max(1, config.budget.rows // count),
        ("books", "repairs_per_s"): config.books.repairs_per_s / count,
        ("catalogue", "cache_dir"): cache_dir,
        ("catalogue", "ttl_s"): _FOR_EVER_S,
    }
    if config.recorder is not None:
        buffer_bytes = max(_BYTES_MIN, config.recorder.buffer_bytes // count)
        settings["recorder", "buffer_bytes"] = buffer_bytes
    changed = {
        f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper(): str(value)
        for (section, key), value in settings.items()
    }
    kept = {name: value for name, value in os.environ.items() if name.upper() not in changed}
    return kept | changed
