"""The schemas in schemas/ are those that the table of row classes gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from ingestor.codec.json_schema import json_schema
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from tests.fakes.weather import WEATHER

SCHEMAS = Path(__file__).parents[3] / "schemas"


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES), ids=lambda one: one.name)
def test_each_class_has_a_schema(row_class: RowClass) -> None:
    path = SCHEMAS / f"{row_class.schema}.schema.json"
    text = json.dumps(json_schema(row_class), indent=2) + "\n"
    how = f"python -m ingestor.codec.json_schema {row_class.channel} > schemas/{path.name}"
    assert path.read_text(encoding="utf-8") == text, how


def test_a_schema_is_printed() -> None:
    command = [sys.executable, "-m", "ingestor.codec.json_schema", "quotes"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (SCHEMAS / "quotes.v1.schema.json").read_text(encoding="utf-8")


def test_what_the_entry_says_is_in_the_schema() -> None:
    schema = json_schema(WEATHER)
    Draft202012Validator.check_schema(schema)
    assert (schema["$id"], schema["title"]) == (
        "urn:ingestor:schema:md.weather.v1+json/1",
        "A forecast, or a gap",
    )
    fields = schema["oneOf"][0]["properties"]
    assert fields["state"] == {"enum": ["unknown", "sunny", "stormy"]}
    assert fields["station"] == {"type": "integer", "description": "Number of the station."}
    assert fields["change"]["description"] == "Decimal text."
