"""Access tokens for SASL/OAUTHBEARER (KIP-255), from a file or a command."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

TOKEN_BYTES_MAX: Final = 64 << 10
COMMAND_S: Final = 10.0
REUSE_S: Final = 30.0  # a token is not asked for again by each connection of one start
_TOKEN: Final = re.compile(r"[\w.~+/=-]+", re.ASCII)  # RFC 6750 section 2.1


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Gives aiokafka the token of the moment, each time a connection is authenticated.

    A token that can't be had fails that connection, which is tried again like any other. The text
    of the failure never has what the file or the command gave.
    """

    def __init__(
        self,
        file: Path | None = None,
        command: Sequence[str] = (),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the token provider.

        Args:
            file: holds the token alone; white space around it is left out.
            command: program and arguments that print the token; used where no file is given.
            clock_s: monotonic, in seconds.
        """
        self._file = file
        self._command = command
        self._clock_s = clock_s
        self._token = ""
        self._until_s = float("-inf")
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        """Return the token. Raises KafkaConnectionError."""
        async with self._lock:
            if self._clock_s() >= self._until_s:
                if self._file is not None:
                    raw = await asyncio.to_thread(self._read, self._file)
                else:
                    raw = await self._ask()
                self._token = self._checked(raw)
                self._until_s = self._clock_s() + REUSE_S
            return self._token

    def _read(self, file: Path) -> bytes:
        try:
            with file.expanduser().open("rb") as opened:
                return opened.read(TOKEN_BYTES_MAX + 1)
        except OSError as failure:
            raise self._failed(failure.strerror or str(failure)) from None

    async def _ask(self) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as failure:
            raise self._failed(failure.strerror or str(failure)) from None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(COMMAND_S):
                raw = await process.stdout.read(TOKEN_BYTES_MAX + 1)
                while more := await process.stdout.read(TOKEN_BYTES_MAX):
                    raw = (raw + more)[: TOKEN_BYTES_MAX + 1]
                status = await process.wait()
        except TimeoutError:
            raise self._failed(f"no answer within {COMMAND_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status:
            raise self._failed(f"it ended with status {status}")
        return raw

    def _checked(self, raw: bytes) -> str:
        if len(raw) > TOKEN_BYTES_MAX:
            raise self._failed(f"more than {TOKEN_BYTES_MAX:,} bytes")
        token = raw.decode("ascii", "replace").strip()
        if not _TOKEN.fullmatch(token):
            raise self._failed("it is empty" if not token else "it is no token (RFC 6750)")
        return token

    def _failed(self, reason: str) -> KafkaConnectionError:
        what = f"token file {self._file}" if self._file else f"token command {self._command[0]}"
        return KafkaConnectionError(f"{what}: {reason}")
