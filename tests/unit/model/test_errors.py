"""Every error says what to do (Recovery) and what is wrong (one line)."""

from __future__ import annotations

import inspect

import pytest

from ingestor.model import errors
from ingestor.model.errors import IngestError, Recovery

EXAMPLES: list[tuple[IngestError, Recovery, str]] = [
    (errors.ReloadRefused("it is stopping"), Recovery.KEEP, "not reloaded: it is stopping"),
    (
        errors.FenceFailed("g.m.1", "no coordinator"),
        Recovery.HOLD,
        "g.m.1 could not be fenced: no coordinator",
    ),
    (errors.PlanUnusable("unknown venue"), Recovery.HOLD, "unknown venue"),
    (
        errors.ClusterError("no member is named x", "did you mean y?"),
        Recovery.EXIT,
        "no member is named x; did you mean y?",
    ),
    (
        errors.ConfigError(
            "unknown key 'tpoic'", where="a.toml: kafka", hint="did you mean 'topic'?"
        ),
        Recovery.EXIT,
        "a.toml: kafka: unknown key 'tpoic'; did you mean 'topic'?",
    ),
    (errors.ConfigError("no feeds"), Recovery.EXIT, "no feeds"),
    (
        errors.LedgerBroken("rows", 1_200),
        Recovery.EXIT,
        "the ledger does not balance: 1,200 rows are unaccounted for",
    ),
    (
        errors.WorkerFailed(1, 2),
        Recovery.EXIT,
        "worker 1 could not start: it ended with status 2",
    ),
    (errors.TransportError("wss://x", "refused"), Recovery.RECONNECT, "wss://x: refused"),
    (
        errors.RequestRefused("https://x/list", 404),
        Recovery.RECONNECT,
        "https://x/list: refused with HTTP 404",
    ),
    (
        errors.RequestRefused("https://x/list", 400, '{"code":-1121}'),
        Recovery.RECONNECT,
        'https://x/list: refused with HTTP 400: {"code":-1121}',
    ),
    (
        errors.VenueError("acme", "50011", "Too Many Requests", temporary=True),
        Recovery.RECONNECT,
        "acme: error 50011: Too Many Requests",
    ),
    (errors.VenueError("acme", "7", ""), Recovery.RECONNECT, "acme: error 7"),
    (
        errors.HandshakeRejected("wss://x", 429, retry_after_s=3),
        Recovery.RECONNECT,
        "wss://x: handshake refused with HTTP 429",
    ),
    (
        errors.PeerClosed("wss://x", 1001),
        Recovery.RECONNECT,
        "wss://x: closed by the venue with code 1001",
    ),
    (
        errors.FeedStale("wss://x", "trades.BTC", 12.34),
        Recovery.RECONNECT,
        "wss://x: trades.BTC silent for 12.3 s",
    ),
    (
        errors.SubscriptionRejected("acme", "no such symbol", ("trade.X",)),
        Recovery.DROP_CHANNEL,
        "acme refuses trade.X: no such symbol",
    ),
    (
        errors.SubscriptionRejected("acme", "bad request"),
        Recovery.DROP_CHANNEL,
        "acme refuses a subscription: bad request",
    ),
    (
        errors.SequenceGap("acme:spot:X", "sequence", 5, 9),
        Recovery.RESUBSCRIBE,
        "acme:spot:X: sequence, 5 to 9 missing",
    ),
    (
        errors.SequenceGap("acme:spot:X", "sequence", 5, 5),
        Recovery.RESUBSCRIBE,
        "acme:spot:X: sequence, 5 missing",
    ),
    (
        errors.SequenceGap("acme:spot:X", "crossed"),
        Recovery.RESUBSCRIBE,
        "acme:spot:X: crossed",
    ),
    (errors.DecodeError("acme", "cut"), Recovery.SKIP_FRAME, "acme: malformed: cut"),
    (errors.UnknownMessage("acme", "{}"), Recovery.SKIP_FRAME, "acme: unknown_message: {}"),
    (errors.UnknownInstrument("acme", "X"), Recovery.SKIP_FRAME, "acme: unknown_instrument: 'X'"),
    (errors.BadNumber("acme", "NaN"), Recovery.SKIP_FRAME, "acme: bad_number: NaN"),
    (errors.SinkUnavailable("kafka", "down"), Recovery.HOLD, "kafka is unavailable: down"),
    (
        errors.TopicAbsent("md.trades.v1", "kafka:9092"),
        Recovery.EXIT,
        "Kafka at kafka:9092 has no topic md.trades.v1, or doesn't show it to us",
    ),
    (
        errors.ListenFailed(
            "the HTTP server", "127.0.0.1:1", "address already in use", hint="take 2"
        ),
        Recovery.EXIT,
        "the HTTP server can't listen on 127.0.0.1:1: address already in use; take 2",
    ),
    (
        errors.RecordRejected("md.trades.v1", 3, "too large"),
        Recovery.DEAD_LETTER,
        "md.trades.v1[3] refuses a record: too large",
    ),
    (
        errors.RecordingError("a.zst", 17, "bad line"),
        Recovery.SKIP_FRAME,
        "a.zst, byte 17: bad line",
    ),
]


@pytest.mark.parametrize(("error", "recovery", "sentence"), EXAMPLES)
def test_remedy_and_sentence(error: IngestError, recovery: Recovery, sentence: str) -> None:
    assert error.recovery is recovery
    assert str(error) == sentence
    assert "\n" not in str(error)


def test_every_class_is_shown_above() -> None:
    classes = {
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, IngestError) and one is not IngestError
    }
    assert classes == {type(error) for error, _, _ in EXAMPLES}
