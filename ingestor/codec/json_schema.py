"""The JSON Schema of a class's records, made from its entry in the table of row classes.

`python -m ingestor.codec.json_schema funding` prints that of the channel `funding`, which belongs
into schemas/.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from ingestor.codec.fields import CAUSE_NAMES, Form, JsonField, json_fields, names_decimals
from ingestor.codec.record import schema_name
from ingestor.model.row_classes import ROW_CLASSES, Exponent, RowClass

_Schema = dict[str, Any]

_NAMES: Final[_Schema] = {
    "venue": {"type": "string"},
    "market": {"type": "string"},
    "symbol": {"type": "string", "description": "The venue's own symbol."},
    "revision": {
        "type": "integer",
        "minimum": 1,
        "description": "Of the instrument's metadata in the topic instruments.v1.",
    },
}
_COUNTS: Final[_Schema] = {
    "session": {
        "type": "string",
        "pattern": "^[0-9a-f]{32}$",
        "description": "The publisher's run.",
    },
    "seq": {
        "type": "integer",
        "minimum": 0,
        "description": "Number of the record's first row in its (session, topic, partition); "
        "rows are numbered without holes.",
    },
    "rows": {
        "type": "integer",
        "minimum": 1,
        "description": "Rows, hence sequence numbers, in this record.",
    },
    "ts_event": {
        "type": "integer",
        "description": "The venue's clock, ns since the Unix epoch. 19 digits: not exact as a "
        "double.",
    },
    "ts_recv": {"type": "integer", "description": "Our clock, ns since the Unix epoch."},
    "sequence": {
        "type": "integer",
        "minimum": 0,
        "description": "The venue's trade or update number, 0 = none.",
    },
    "flags": {
        "type": "integer",
        "minimum": 0,
        "maximum": 65535,
        "description": "Bits: 1 last row of a venue event, 2 snapshot, 4 the venue gave no time, "
        "8 partial snapshot.",
    },
}
_DECIMALS: Final[_Schema] = {
    "type": "array",
    "prefixItems": [{"type": "integer"}, {"type": "integer"}],
    "items": False,
    "minItems": 2,
    "description": "Decimals of the instrument's prices and of its sizes.",
}
_GAP: Final[_Schema] = {
    "cause": {"enum": list(CAUSE_NAMES.values())},
    "first": {
        "type": "integer",
        "description": "First missing sequence number of the venue, 0 = not known.",
    },
    "last": {
        "type": "integer",
        "description": "Last missing sequence number of the venue, 0 = not known.",
    },
    "decimals": _DECIMALS,
}
_FORMS: Final[dict[Form, _Schema]] = {
    Form.NUMBER: {
        "type": "string",
        "pattern": "^-?[0-9]+(\\.[0-9]+)?$",
        "description": "Decimal text with exactly as many decimals as the instrument has.",
    },
    Form.ID: {"type": "string", "description": 'Decimal digits or a UUID; "0" = none.'},
    Form.INTEGER: {"type": "integer"},
}


def json_schema(row_class: RowClass) -> _Schema:
    """Return the JSON Schema (2020-12) of the records of a class."""
    kind, *controls = kinds = [row_class.kind_name, "gap"]
    if row_class.has_levels:
        controls = ["gap", "reset"]
        kinds = [kind, *controls]
    header = {
        **_NAMES,
        "channel": {"const": row_class.channel},
        "kind": {"enum": kinds},
        **{name: _noted(row_class, name, field) for name, field in _COUNTS.items()},
    }
    if row_class.has_levels:
        fields = dict.fromkeys(("bids", "asks"), _noted(row_class, "price", _levels()))
    else:
        fields = {field.name: _field(row_class, field) for field in json_fields(row_class)}
    if names_decimals(row_class):
        fields = {"decimals": _DECIMALS, **fields}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ingestor:schema:{schema_name(row_class.schema)}",
        "title": row_class.title,
        "type": "object",
        "properties": header,
        "required": list(header),
        "oneOf": [_variant([kind], fields), _variant(controls, _GAP)],
        "unevaluatedProperties": False,
    }


def _variant(kinds: list[str], fields: _Schema) -> _Schema:
    return {"properties": {"kind": {"enum": kinds}, **fields}, "required": list(fields)}


def _levels() -> _Schema:
    number = _FORMS[Form.NUMBER]
    pair = {"type": "array", "prefixItems": [number, number], "items": False, "minItems": 2}
    return {"type": "array", "items": pair}


def _field(row_class: RowClass, field: JsonField) -> _Schema:
    schema = dict(_FORMS.get(field.form) or {"enum": list(field.names.values())})
    if field.exponent in {Exponent.RATE, Exponent.OWN}:
        schema["description"] = "Decimal text."
    if field.name in row_class.optional:
        schema["type"] = [schema["type"], "null"]
    return _noted(row_class, field.name, schema)


def _noted(row_class: RowClass, name: str, schema: _Schema) -> _Schema:
    note = row_class.notes.get(name)
    return {**schema, "description": note} if note else schema


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(ROW_CLASSES.of_channel(sys.argv[1])), indent=2) + "\n")
