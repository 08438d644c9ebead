"""Reading the configuration: a TOML file, the environment over it, and errors of one line each.

Whatever is wrong is found here, before any socket opens: unknown keys, venues, markets and
channels, values out of range, files that can't be read. Symbols need the venue's instrument list
and are checked by the catalogue.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from ingestor.config.model import ENV_DELIMITER, ENV_PREFIX, Config, KafkaConfig
from ingestor.model.errors import ConfigError
from ingestor.model.suggest import nearest

Venues = Mapping[str, Collection[str]]  # venue -> its markets
Place = tuple[int | str, ...]  # ("feeds", 0, "venue")

_FILES: Final = ("sasl_password_file", "ssl_cafile", "ssl_certfile", "ssl_keyfile")
_NAME: Final = re.compile(r"[\w.-]{1,64}")
_NO_SETTINGS: Final = ("INGESTOR_NATIVE",)  # ours, read by the build and by the loader
_FIELD: Final = re.compile('field "([a-z_]+)"')  # in the text of a SettingsError
_SUBJECT: Final = re.compile(r"^\w+ should ")  # how pydantic's sentences begin


def load(path: Path | None, venues: Venues) -> Config:
    """Read a TOML file (None: no file) and the environment.

    venues: every known venue with its markets. Raises ConfigError: the first problem, and how many
    more there are.
    """
    config, problems = _read(path, venues)
    if problems:
        first, more = problems[0], len(problems) - 1
        if more:
            first.hint = f"{first.hint} (and {more} more)".strip()
        raise first
    assert config is not None
    return config


def with_servers(config: Config, servers: str, where: str) -> Config:
    """Return the configuration with other addresses of Kafka.

    Args:
        config: The configuration.
        servers: host:port, separated by commas.
        where: Origin of `servers`, for errors.

    Raises:
        ConfigError: An address is not valid.
    """
    try:
        kafka = KafkaConfig.model_validate({**dict(config.kafka), "bootstrap_servers": servers})
    except ValidationError as failure:
        problem = _explain(failure.errors()[0], None)
        raise ConfigError(problem.what, where=where, hint=problem.hint) from None
    return config.model_copy(update={"kafka": kafka})


def find_problems(path: Path | None, venues: Venues) -> list[ConfigError]:
    """Return all that `load` would object to."""
    return _read(path, venues)[1]


def kafka_password(kafka: KafkaConfig) -> str | None:
    """Return the SASL password, from its file if it is kept in one. Raises ConfigError."""
    if kafka.sasl_password is not None:
        return kafka.sasl_password.get_secret_value()
    if kafka.sasl_password_file is None:
        return None
    return _read_text(kafka.sasl_password_file, "kafka.sasl_password_file").removesuffix("\n")


def _read(path: Path | None, venues: Venues) -> tuple[Config | None, list[ConfigError]]:
    try:
        config = Config(**(_read_toml(path) if path else {}))
    except ConfigError as failure:
        return None, [failure]
    except SettingsError as failure:
        field = _FIELD.search(str(failure))
        where = f"{ENV_PREFIX}{field[1].upper()}" if field else "environment"
        return None, [ConfigError("must be JSON", where=where)]
    except ValidationError as failure:
        problems = [_explain(error, path) for error in _innermost(failure.errors())]
        # Whoever mends these should not meet the next ones only then.
        return None, [*problems, *_unknown_variables(), *_unknown_venues(_raw(path), venues, path)]
    feeds = [(index, feed.venue, feed.market) for index, feed in enumerate(config.feeds)]
    return config, [
        *_unknown_variables(),
        *_unknown_venues(feeds, venues, path),
        *_unreadable_files(config.kafka, path),
    ]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as failure:
        raise ConfigError(f"is no TOML: {_one_line(failure)}", where=str(path)) from None
    for key in content:
        if key.startswith("_"):  # would be an argument of pydantic-settings itself
            raise ConfigError("unknown key", where=_where((key,), path))
    return content


def _read_text(path: Path, key: str = "") -> str:
    try:
        return path.expanduser().read_text("utf-8")
    except OSError as failure:
        what = f"can't be read: {failure.strerror or failure}"
    except UnicodeDecodeError as failure:
        what = f"is no UTF-8 text: byte {failure.start}"
    raise ConfigError(what, where=f"{key} {path}".strip())


def _unknown_variables() -> Iterator[ConfigError]:
    """Sections that no setting has; keys inside of a section are refused by its model."""
    for variable in sorted(os.environ):
        section = variable.upper().removeprefix(ENV_PREFIX).split(ENV_DELIMITER)[0].lower()
        if variable.upper().startswith(ENV_PREFIX) and section not in Config.model_fields:
            hint = nearest(section, Config.model_fields)
            yield ConfigError(f"unknown section {section!r}", where=variable, hint=hint)


def ignored_variables() -> list[tuple[str, str]]:
    """Return environment variables that look like settings of ours and are none.

    Returns:
        Pairs of the name and of the setting that was probably meant, "" where none is like it.
    """
    settings = {
        re.sub("_+", "_", f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}").upper(): (
            f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper()
        )
        for section in Config.model_fields
        for key in _keys_of(section)
    }
    found = []
    for variable in sorted(os.environ):
        name = variable.upper()
        is_like = name.startswith("INGESTOR_") and not name.startswith(ENV_PREFIX)
        if is_like and variable not in _NO_SETTINGS:
            close = get_close_matches(re.sub("_+", "_", name), settings, n=1, cutoff=0.8)
            found.append((variable, settings[close[0]] if close else ""))
    return found


def _keys_of(section: str) -> Iterable[str]:
    annotation = _annotation((section,))
    return annotation.model_fields if is_model(annotation) else ()


def _raw(path: Path | None) -> Iterator[tuple[int, str, str]]:
    """Yield the feeds of a file that name a venue and a market by texts."""
    feeds = _read_toml(path).get("feeds") if path else None
    for index, feed in enumerate(feeds if isinstance(feeds, list) else ()):
        if not isinstance(feed, dict):
            continue
        venue, market = feed.get("venue"), feed.get("market", "spot")
        if isinstance(venue, str) and isinstance(market, str) and _NAME.fullmatch(venue):
            yield index, venue, market


def _unknown_venues(
    feeds: Iterable[tuple[int, str, str]], venues: Venues, path: Path | None
) -> Iterator[ConfigError]:
    """Yield what is wrong with venues and markets. feeds: place, venue and market of each."""
    for index, venue, market in feeds:
        if venue not in venues:
            where = _where(("feeds", index, "venue"), path)
            hint = nearest(venue, venues)
            yield ConfigError(f"unknown venue {venue!r}", where=where, hint=hint)
        elif market not in venues[venue]:
            where = _where(("feeds", index, "market"), path)
            hint = nearest(market, venues[venue])
            yield ConfigError(f"{venue} has no market {market!r}", where=where, hint=hint)


def _unreadable_files(kafka: KafkaConfig, path: Path | None) -> Iterator[ConfigError]:
    for name in _FILES:
        file: Path | None = getattr(kafka, name)
        if file is not None:
            try:
                _read_text(file)
            except ConfigError as failure:
                where = f"{_where(('kafka', name), path)}: {file}"
                yield ConfigError(failure.what, where=where)


def _explain(error: ErrorDetails, path: Path | None) -> ConfigError:
    """Turn one of pydantic's errors into a sentence with the key and what would be right."""
    place: Place = error["loc"]
    where = _where(place, path)
    given = f"{error['input']!s:.60}"
    match error["type"]:
        case "extra_forbidden":
            model = _annotation(place[:-1])
            known = model.model_fields if is_model(model) else ()
            return ConfigError("unknown key", where=where, hint=nearest(str(place[-1]), known))
        case "missing":
            return ConfigError("must be given", where=where)
        case "literal_error":
            hint = nearest(given, map(str, _choices(_annotation(place))))
            return ConfigError(f"unknown value {given!r}", where=where, hint=hint)
        case "tuple_type":
            return ConfigError('must be a list, such as ["first", "second"]', where=where)
        case "value_error":
            return ConfigError(str(error["ctx"]["error"]), where=where)
    what = _SUBJECT.sub("must ", _one_line(error["msg"])).replace(" after validation, not 0", "")
    return ConfigError(what, where=where)


def _innermost(errors: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Leave out errors of a place whose members have errors of their own: mere consequences."""
    places = [error["loc"] for error in errors]
    for error in errors:
        place = error["loc"]
        if not any(len(item) > len(place) and item[: len(place)] == place for item in places):
            yield error


def _where(place: Place, path: Path | None) -> str:
    """Name the environment variable that set a value, else the file and the key."""
    variables = {variable.upper(): variable for variable in os.environ}
    for length in range(len(place), 1, -1):
        name = ENV_PREFIX + ENV_DELIMITER.join(map(str, place[:length]))
        if name.upper() in variables:
            return variables[name.upper()]
    if place and (whole := variables.get(f"{ENV_PREFIX}{place[0]}".upper())):
        return whole
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return ": ".join(part for part in (str(path or ""), key.removeprefix(".")) if part)


def _annotation(place: Place) -> Any:
    """Return the type that the models declare at a place, None where they declare nothing."""
    found: Any = Config
    for part in place:
        if isinstance(part, int):
            found = (get_args(found) or (None,))[0]
        else:
            field = found.model_fields.get(part) if is_model(found) else None
            found = field.annotation if field else None
        found = bare(found)
    return found


def bare(annotation: Any) -> Any:
    """Take `Annotated` and `| None` away from a type."""
    while get_origin(annotation) in {Annotated, Union, UnionType}:
        annotation = get_args(annotation)[0]
    return annotation


def is_model(annotation: Any) -> bool:
    """Return True if a type is one of pydantic's models."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _choices(annotation: Any) -> tuple[object, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _one_line(failure: object) -> str:
    return " ".join(str(failure).split())
