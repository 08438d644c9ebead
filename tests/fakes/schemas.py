"""The JSON Schemas of the topics, and records held against them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from jsonschema import Draft202012Validator

from ingestor.codec import schema_name

SCHEMAS = Path(__file__).parents[2] / "schemas"


@cache
def validator(topic: str) -> Draft202012Validator:
    """Return the judge of a topic's records. topic: without its prefix, as "trades.v1"."""
    schema = json.loads((SCHEMAS / f"{topic}.schema.json").read_text(encoding="utf-8"))
    identity = schema["$id"]
    assert urlsplit(identity).scheme == "urn", "an absolute URI"
    assert identity.removeprefix("urn:ingestor:schema:") == schema_name(topic)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check(topic: str, values: Iterable[bytes]) -> list[dict[str, Any]]:
    """Validate records, and see that the schema would notice a field too many or too few."""
    judge = validator(topic)
    records: list[dict[str, Any]] = [orjson.loads(value) for value in values]
    for record in records:
        judge.validate(record)
        assert not judge.is_valid(record | {"surprise": 1})
        for name in record:
            assert not judge.is_valid({key: record[key] for key in record if key != name})
    return records
