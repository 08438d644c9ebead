"""Logs: one event a line on standard error, rate-limited per cause, without secrets.

Events are dotted names with fields (`log.warning("session.reconnect", venue=..., cause=...)`).
Nothing on the way of the data logs; what logs is rare, and a cause that repeats is counted. What
the libraries log through `logging` takes the same way.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, BinaryIO, Final, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ingestor.config.model import LogConfig
from ingestor.telemetry.output import printable, printable_json, writer_of

STARS: Final = "***"
WINDOW_S: Final = 60.0
CAUSES_MAX: Final = 1_000  # remembered at once; beyond it the oldest window is forgotten
_CAUSE_CHARS: Final = 200
_NUMBERS: Final = re.compile(r"0x[0-9a-fA-F]+|\d+\.\d+|\d{4,}")  # not codes, such as HTTP 503

_labels: Final[dict[str, object]] = {}

_SENSITIVE: Final = (
    r"pass(?:word|wd|phrase)?|secret|token|(?:api|access|secret|private|listen|session)[-_]?key|"
    r"auth(?:orization)?|sign(?:ature)?|credentials?|cookie"
)
_SENSITIVE_FIELD: Final = re.compile(rf"(?:^|[-_.])(?:{_SENSITIVE})$", re.IGNORECASE)
_IN_TEXT: Final = (  # the scheme first: "Authorization: Bearer x" has two words after the name
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), rf"\1 {STARS}"),
    # user:password@ of a URL; a password may have an @ of its own
    (re.compile(r"://[^/\s?\"]+@"), f"://{STARS}@"),
    (re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|$)"), rf"\1{STARS}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), STARS),  # a JSON Web Token (RFC 7519)
    (re.compile(r"(?i)([?&]key=)[^\s&\"']+"), rf"\1{STARS}"),
    (
        re.compile(rf"(?i)\b([\w.-]*(?:{_SENSITIVE})[\"']?\s*[=:]\s*[\"']?)[^\s&\"',;}}]+"),
        rf"\1{STARS}",
    ),
)


class Redactor:
    """Takes secrets out of anything that is about to be written.

    secrets: values known to be secret, wherever they show up. Besides: fields and `name=value`
    texts whose name says so, and what stands before the @ of a URL.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(STARS, text)
        for pattern, stars in _IN_TEXT:
            text = pattern.sub(stars, text)
        return text

    def value(self, value: object) -> object:
        """Return a JSON-like value without the secrets in it; other objects by their repr."""
        match value:
            case str():
                return self.text(value)
            case None | bool() | int() | float():
                return value
            case dict():
                return {
                    self.text(str(key)): self.field(str(key), one) for key, one in value.items()
                }
            case (str() as name, hidden) if hidden and _SENSITIVE_FIELD.search(name):
                return [name, STARS]  # a header
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
        return self.text(
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        )

    def field(self, name: str, value: object) -> object:
        return STARS if value and _SENSITIVE_FIELD.search(name) else self.value(value)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {self.text(name): self.field(name, value) for name, value in event.items()}


class RateLimit:
    """Lets few lines of an event and cause pass; the next line says how many weren't.

    A cause has its lines for a minute. One that overran them has a single line in each minute that
    follows, until a minute passes in which it keeps to them: an outage is told, not transcribed.
    """

    def __init__(self, per_minute: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock_s = clock_s
        self._windows: dict[tuple[object, ...], _Window] = {}

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        key, now_s = cause_key(event), self._clock_s()
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= CAUSES_MAX:
                self._windows.pop(next(iter(self._windows)))
            window = self._windows[key] = _Window(now_s, self._per_minute)
        elif now_s - window.start_s >= WINDOW_S:
            goes_on = window.overran and now_s - window.start_s < 2 * WINDOW_S
            window.start_s, window.overran = now_s, False
            window.left = 1 if goes_on else self._per_minute
        if not window.left:
            window.overran = True
            window.suppressed += 1
            raise structlog.DropEvent
        window.left -= 1
        if window.suppressed:
            event["suppressed"] = window.suppressed
            window.suppressed = 0
        return event


class _Window:
    __slots__ = ("left", "overran", "start_s", "suppressed")

    def __init__(self, start_s: float, left: int) -> None:
        self.start_s = start_s
        self.left = left
        self.overran = False
        self.suppressed = 0


def cause_key(event: EventDict) -> tuple[object, ...]:
    """Return what lines of the same event and cause have in common.

    The cause is the event's `cause`, else its `reason`, whatever ports, times and addresses of
    objects it quotes. A venue's lines are its own, so that it takes none from another.
    """
    cause = str(event.get("cause", event.get("reason", "")))[:_CAUSE_CHARS]
    return event.get("event"), event.get("venue"), _NUMBERS.sub("#", cause)


class _Forward(logging.Handler):
    """Turn the log lines of libraries into events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            max(record.levelno, logging.DEBUG),
            "library",
            logger=record.name,
            message=record.getMessage(),
            cause=f"{record.name}: {record.msg}",
            exc_info=record.exc_info,
        )


def configure(
    config: LogConfig, secrets: Iterable[str] = (), stream: BinaryIO | None = None
) -> None:
    """Set logging up for the process.

    Args:
        config: Level and form.
        secrets: Texts that are never printed.
        stream: Where lines go; standard error by default.
    """
    level = logging.getLevelNamesMapping()[config.level.upper()]
    file = stream or writer_of(sys.stderr) or BytesIO()
    processors: list[Processor] = [
        _add_labels,
        structlog.processors.add_log_level,
        RateLimit(config.per_cause_per_minute),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        Redactor(secrets),
        *(_JSON if config.format == "json" else _CONSOLE),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", file)),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Forward()]
    # Libraries say at INFO what is of use to their authors, and at DEBUG whole handshakes.
    root.setLevel(max(level, logging.WARNING))


def label(**fields: object) -> None:
    """Put fields on every line of this process from now on."""
    _labels.update(fields)


def _add_labels(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {**_labels, **event} if _labels else event


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
    content = {"ts": event.pop("ts", None), "level": event.pop("level", None), **event}
    try:
        line = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY, default=str)
    except (TypeError, ValueError):  # a lone surrogate, an integer of more than 64 bits
        line = json.dumps(content, default=str).encode()
    if line.isascii() and b"\x7f" not in line:
        return line
    return printable_json(line.decode()).encode()


def _make_printable(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape what a terminal would obey; a venue's text never makes a line of its own.

    The lines of a traceback are marked, since what it quotes may hold line ends.
    """
    trace = event.pop("exception", None)
    plain = {printable(name): _printable(value) for name, value in event.items()}
    if trace is not None:
        lines = str(trace).replace("\r\n", "\n").split("\n")
        plain["exception"] = "\n".join(f"  | {printable(line)}" for line in lines)
    return plain


def _printable(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else printable(str(value))


def _encode(logger: WrappedLogger, method: str, line: Any) -> bytes:
    return str(line).encode("utf-8", "backslashreplace")


_JSON: Final[tuple[Processor, ...]] = (_render_json,)
_CONSOLE: Final[tuple[Processor, ...]] = (
    _make_printable,
    structlog.dev.ConsoleRenderer(
        colors=False,
        timestamp_key="ts",
        # Not rich's: it would show local variables, and secrets with them.
        exception_formatter=structlog.dev.plain_traceback,
    ),
    _encode,
)
