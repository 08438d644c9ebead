"""A lost socket is a failure of Kafka's, whichever event loop noticed it.

Between a socket's loss and the turn of the loop in which aiokafka hears of it, asyncio drops what
is written. uvloop raises RuntimeError, which aiokafka doesn't know (aio-libs/aiokafka#1038): it
would end the task that renews a cluster's metadata, a consumer's fetcher, or our own sender.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, Final

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, CloseReason

_METHODS: Final = ("send", "_send_sasl_token")


def fail_writes_to_lost_sockets() -> None:
    """Let aiokafka's connections raise KafkaConnectionError there. May be called again."""
    for name in _METHODS:
        method = getattr(AIOKafkaConnection, name)
        if not hasattr(method, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _failing(method))


def _failing(method: Any) -> Any:
    @wraps(method)
    def call(connection: AIOKafkaConnection, *arguments: Any, **options: Any) -> Any:
        try:
            return method(connection, *arguments, **options)
        except errors.KafkaError:  # a RuntimeError itself
            raise
        except RuntimeError as refused:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            place = f"{connection.host}:{connection.port}"
            raise errors.KafkaConnectionError(f"connection to {place} lost") from refused

    return call
