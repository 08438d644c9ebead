"""Explain why no broker can be reached. aiokafka's failure names addresses and no reason."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import errors

from ingestor.kafka.aiokafka_compat import collect_hosts, create_conn
from ingestor.model.errors import SinkUnavailable

_ASKED_MAX: Final = 3  # of the addresses, so that the answer doesn't take minutes
_ANSWER_MS: Final = 3_000
_ASKING: Final = (
    "client_id",
    "ssl_context",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_oauth_token_provider",
)


@dataclass(frozen=True, slots=True)
class Reason:
    """is_final: the broker is there and refuses us; it will again until somebody changes what."""

    text: str
    is_final: bool = False


async def explain_connection_failure(failure: BaseException, options: Mapping[str, Any]) -> Reason:
    """Return the reason of a failure to connect; where the failure has none, ask the brokers.

    options: as given to the aiokafka client that failed. Nothing secret is in the text.
    """
    if not isinstance(failure, errors.KafkaConnectionError):
        return _reason(failure, options)
    asked = collect_hosts(options["bootstrap_servers"], randomize=False)[:_ASKED_MAX]
    return await _first_refusal(asked, options) or _reason(failure, options)


async def require_broker(options: Mapping[str, Any]) -> None:
    """Look for a broker that answers, before a client is made that would log each failure.

    options: as for an aiokafka client.

    Raises:
        SinkUnavailable: where there is none.
    """
    addresses = collect_hosts(options["bootstrap_servers"], randomize=False)
    refused = Reason("no address is given")
    for address in addresses:
        reason = await _first_refusal([address], options)
        if reason is None:
            return
        refused = reason
        if reason.is_final:
            break
    raise SinkUnavailable(f"Kafka at {_text_of(options)}", refused.text)


async def unavailable(failure: BaseException, options: Mapping[str, Any]) -> SinkUnavailable:
    """Return the error that tells why no broker can be had.

    Args:
        failure: what a client raised.
        options: as given to it.
    """
    reason = await explain_connection_failure(failure, options)
    return SinkUnavailable(f"Kafka at {_text_of(options)}", reason.text)


def _text_of(options: Mapping[str, Any]) -> str:
    servers = options["bootstrap_servers"]
    return servers if isinstance(servers, str) else ",".join(servers)


async def _first_refusal(
    addresses: Sequence[tuple[str, int, Any]], options: Mapping[str, Any]
) -> Reason | None:
    """Return why brokers refuse us, the one that is final if there is one; None where none does."""
    asking = {name: options[name] for name in _ASKING if options.get(name) is not None}
    found: Reason | None = None
    for host, port, _ in addresses:
        try:
            connection = await create_conn(host, port, request_timeout_ms=_ANSWER_MS, **asking)
        except (errors.KafkaError, OSError, TimeoutError) as refusal:
            found = _reason(refusal, options)
            if found.is_final:
                return found
        else:
            connection.close()
    return found


def _reason(failure: BaseException, options: Mapping[str, Any]) -> Reason:
    match failure:
        case errors.UnsupportedSaslMechanismError():
            mechanism = options.get("sasl_mechanism")
            return Reason(f"the broker doesn't offer the SASL mechanism {mechanism}", True)
        case errors.SaslAuthenticationFailed() | errors.AuthenticationFailedError():
            said = str(failure).partition(": ")[2]
            return Reason(said or "authentication failed", True)
        case ssl.SSLCertVerificationError():
            return Reason(f"its certificate isn't trusted: {failure.verify_message}", True)
        case ssl.SSLError():
            return Reason(f"no TLS on that port, or none that we accept ({failure.reason})")
        case TimeoutError() | errors.KafkaTimeoutError():
            return Reason("no answer in time")
        case OSError() if failure.errno and failure.errno > 0:
            return Reason(os.strerror(failure.errno))
    return Reason(str(failure) or repr(failure))
