"""Explain why no broker can be reached. aiokafka's failure names addresses and no reason."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import errors

from ingestor.kafka.aiokafka_compat import collect_hosts, create_conn

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
    found: Reason | None = None
    for host, port, _ in collect_hosts(options["bootstrap_servers"], randomize=False)[:_ASKED_MAX]:
        asking = {name: options[name] for name in _ASKING if name in options}
        try:
            connection = await create_conn(host, port, request_timeout_ms=_ANSWER_MS, **asking)
        except (errors.KafkaError, OSError, TimeoutError) as refusal:
            found = _reason(refusal, options)
            if found.is_final:
                return found
        else:
            connection.close()
    return found or _reason(failure, options)


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
