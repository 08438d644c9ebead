"""Read topics for `ingestor consume` and `ingestor audit`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import typer
from aiokafka.errors import KafkaError

from ingestor.cli.common import complain
from ingestor.codec import CodecError, decode
from ingestor.codec.fields import CAUSE_NAMES
from ingestor.codec.json_encoder import row_values
from ingestor.consumer import Audit, Consumer, audit
from ingestor.kafka.diagnosis import unavailable
from ingestor.kafka.settings import STATUS, KafkaSettings
from ingestor.model.batch import InstrumentLike, TickBatch
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Flag, Kind
from ingestor.model.timestamps import Time, iso_text
from ingestor.telemetry.output import printable

_HOLES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class ConsumeOptions:
    """start: as for Consumer. limit: rows, None = no limit."""

    topic: str
    start: Time
    limit: int | None
    to_end: bool
    as_json: bool


async def print_topic(kafka: KafkaSettings, options: ConsumeOptions) -> None:
    """Print rows until the limit, the end, or for ever. Raises SinkUnavailable, TopicAbsent."""
    left = options.limit
    is_rows = options.topic.endswith(tuple(row_class.topic for row_class in ROW_CLASSES))
    consuming = Consumer(
        kafka.bootstrap_servers,
        [options.topic],
        start=options.start,
        stop_at_end=options.to_end,
        **kafka.consumer_options(),
    )
    try:
        async with consuming:
            async for partition, record in consuming.raw_records():
                if record.value is None:
                    continue
                where = f"{partition.topic}[{partition.partition}] offset {record.offset}"
                value = record.value
                for line in _lines(value, where, options) if is_rows else [_as_it_is(value)]:
                    typer.echo(printable(line))
                    if left is not None:
                        left -= 1
                        if not left:
                            return
    except KafkaError as failure:
        raise await unavailable(failure, kafka.client_options()) from None


async def audit_topics(kafka: KafkaSettings, topics: Sequence[str], start: Time) -> Audit:
    """Audit topics.

    Args:
        kafka: How to reach Kafka.
        topics: Their names.
        start: Where to begin: a time, or the first or last record.

    Raises:
        SinkUnavailable: Kafka can't be reached.
        TopicAbsent: There is no such topic.
    """
    wanted = topics or [kafka.tick_topic(row_class) for row_class in ROW_CLASSES]
    options = {**kafka.consumer_options(), "start": start}
    if not topics:
        others = [
            kafka.tick_topic(row_class) for row_class in ROW_CLASSES if not row_class.is_standard
        ]
        options["may_be_absent"] = others
    try:
        return await audit(kafka.bootstrap_servers, wanted, kafka.topic(STATUS), **options)
    except KafkaError as failure:
        raise await unavailable(failure, kafka.client_options()) from None


def audit_text(report: Audit) -> str:
    """Return the verdict first, then the holes."""
    verdict = "complete" if report.complete else "INCOMPLETE"
    lines = [
        (
            f"{verdict}: {report.rows:,} rows in {report.partitions} partitions of "
            f"{len(report.sessions)} sessions, {report.duplicates:,} sent twice, "
            f"{len(report.void)} ranges declared void"
        )
    ]
    if report.foreign_records:
        last = report.foreign[-1]
        where = f"{last.topic}[{last.partition}] offset {last.offset}"
        lines.append(f"  {report.foreign_records:,} records are none of ours, the last {where}")
    for hole in report.holes[:_HOLES_SHOWN]:
        where = f"{hole.topic}[{hole.partition}] session {hole.session}"
        lines.append(f"  {where}: rows {hole.first:,} to {hole.last:,} are missing")
    if len(report.holes) > _HOLES_SHOWN:
        lines.append(f"  ... and {len(report.holes) - _HOLES_SHOWN} more")
    return "\n".join(lines)


def _as_it_is(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _lines(value: bytes, where: str, options: ConsumeOptions) -> Iterator[str]:
    try:
        batch = decode(value).batch
    except CodecError as failure:
        complain(f"{where} is skipped: {failure}")
        return
    for row in rows_of(batch):
        yield orjson.dumps(row).decode() if options.as_json else _text(row)


def rows_of(batch: TickBatch) -> Iterator[dict[str, Any]]:
    """Yield each row as JSON types, prices and sizes as decimal text."""
    for row in batch.rows:
        instrument = batch.instruments[int(row["instrument"])]
        yield {
            "kind": ROW_CLASSES.kind_name(int(row["kind"])),
            "instrument": instrument.key,
            "ts_event": int(row["ts_event"]),
            "ts_recv": int(row["ts_recv"]),
            "sequence": int(row["sequence"]),
            "flags": [flag.name.lower() for flag in Flag(int(row["flags"])) if flag.name],
            **_fields(row, batch.row_class, instrument),
        }


def _fields(row: Any, row_class: RowClass, instrument: InstrumentLike) -> dict[str, Any]:
    kind = int(row["kind"])
    if kind == row_class.id:
        exponents = (instrument.price_exponent, instrument.size_exponent)
        values = row_values(row_class, row, *exponents)
        labels = row_class.labels.items()
        return {name: names.get(int(row[name])) for name, names in labels} | values
    control = row.view(row_class.control)
    fields: dict[str, Any] = {"cause": CAUSE_NAMES[int(control["cause"])]}
    if kind == Kind.GAP:
        fields |= {"first": int(control["first"]), "last": int(control["last"])}
    return fields


def _text(row: dict[str, Any]) -> str:
    """One line: time, instrument, kind, then what the kind has."""
    rest = [
        f"{name}={value}"
        for name, value in row.items()
        if name not in {"kind", "instrument", "ts_event", "ts_recv", "flags"}
    ]
    flags = ",".join(row["flags"])
    return " ".join((iso_text(row["ts_event"]), row["instrument"], row["kind"], *rest, flags))
