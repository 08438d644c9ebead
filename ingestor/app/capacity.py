"""Compute cores, memory and volumes from a plan, rates and benchmarks. Pure.

docs/capacity.md says where each figure comes from, and how to measure it on another machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Final

from ingestor.config.model import Config
from ingestor.model.errors import ConfigError
from ingestor.sources.live.plan import Plan

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
DAY_S: Final = 86_400
LOAD_MAX: Final = 0.6  # of a core, at the peak: above it lag grows fast

# Messages a second of one stream over a day, as a liquid pair of a large venue has them.
RATES: Final[Mapping[str, float]] = {"trades": 2.0, "quotes": 10.0, "book": 10.0}
OTHER_RATE: Final = 0.2
LEVELS_PER_UPDATE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """State what one message, connection and book take.

    Times are CPU of the process, from the socket to
    the acknowledgment; bytes of Kafka are compressed (LZ4), of recordings too (zstd).

    read_ns: of a message that comes alone, beside what its rows take. base_cores: of a process
    whose loop has something to do all the time.
    """

    trade_ns: float
    quote_ns: float
    level_ns: float
    recording_part: float  # of the throughput that is lost to it
    read_ns: float = 5_000.0
    base_cores: float = 0.1
    process_bytes: float = 100 * MIB
    connection_bytes: float = 41 * KIB  # with TLS
    level_bytes: float = 104 * KIB / 2_000
    levels_per_book: float = 1_000.0
    kafka_trade: float = 60.0
    kafka_quote: float = 45.0
    kafka_level: float = 15.0
    kafka_other: float = 80.0
    recorded_frame: float = 80.0


JSON: Final = Figures(1e9 / 293_686, 1e9 / 276_173, 1e9 / 986_281, 0.264)
BINARY: Final = Figures(
    *(1e9 / 569_870, 1e9 / 548_601, 1e9 / 1_423_579, 0.289),
    kafka_trade=33.0,
    kafka_quote=25.0,
    kafka_level=13.0,
    kafka_other=45.0,
)


def measured(encoding: str, headline: Mapping[str, Any]) -> Figures:
    """Return the figures of a run of the benchmarks, the built-in ones where it has none.

    Args:
        encoding: Of the topics.
        headline: The member `headline` of what `python -m benchmarks --json` prints.
    """
    known = JSON if encoding == "json" else BINARY
    changed: dict[str, float] = {}
    for name, key in (
        ("trade_ns", f"throughput_trades_per_cpu_s_{encoding}"),
        ("quote_ns", f"throughput_quotes_per_cpu_s_{encoding}"),
        ("level_ns", f"throughput_levels_per_cpu_s_{encoding}"),
    ):
        if headline.get(key):
            changed[name] = 1e9 / float(headline[key])
    if f"recording_cost_{encoding}" in headline:
        changed["recording_part"] = float(headline[f"recording_cost_{encoding}"])
    if "kib_per_connection_tls" in headline:
        changed["connection_bytes"] = float(headline["kib_per_connection_tls"]) * KIB
    if "kib_per_book_of_1000_levels_a_side" in headline:
        per_book = float(headline["kib_per_book_of_1000_levels_a_side"])
        changed["level_bytes"] = per_book * KIB / 2_000
    return replace(known, **changed)


@dataclass(frozen=True, slots=True)
class Capacity:
    """State what a configuration takes.

    streams: by channel. Rates are of an average second.
    """

    connections: int
    streams: dict[str, int]
    messages_per_s: float
    rows_per_s: float
    cores: float
    peak_cores: float
    workers: int
    memory_bytes: int
    kafka_bytes_per_day: int
    recording_bytes_per_day: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


def capacity_of(
    plan: Plan, config: Config, figures: Figures, rates: Mapping[str, float], peak: float
) -> Capacity:
    """Return what a plan takes.

    Args:
        plan: Connections and streams.
        config: Budget, encoding and recorder.
        figures: What one of each takes.
        rates: Messages a second of one stream by channel; others have the usual ones.
        peak: How many times the average the busiest minutes bring.
    """
    streams: Counter[str] = Counter(
        subscription.channel for item in plan for subscription in item.subscriptions
    )
    cpu_s = kafka = messages = rows = 0.0
    for channel, count in streams.items():
        rate = count * rates.get(channel, RATES.get(channel, OTHER_RATE))
        levels = LEVELS_PER_UPDATE if channel == "book" else 1.0
        ns, row_bytes = _of_channel(channel, figures)
        messages += rate
        rows += rate * levels
        cpu_s += rate * (levels * ns + figures.read_ns) / 1e9
        kafka += rate * levels * row_bytes * DAY_S
    is_recorded = config.recorder is not None
    if is_recorded:
        cpu_s /= 1 - figures.recording_part
    room = LOAD_MAX - figures.base_cores
    workers = max(1, ceil(cpu_s * peak / room))
    base = workers * figures.base_cores
    per_worker = figures.process_bytes + config.budget.bytes
    if config.recorder is not None:
        per_worker += config.recorder.buffer_bytes
    memory = workers * per_worker + len(plan) * figures.connection_bytes
    memory += streams["book"] * figures.levels_per_book * 2 * figures.level_bytes
    return Capacity(
        connections=len(plan),
        streams=dict(streams),
        messages_per_s=messages,
        rows_per_s=rows,
        cores=base + cpu_s,
        peak_cores=base + cpu_s * peak,
        workers=workers,
        memory_bytes=round(memory),
        kafka_bytes_per_day=round(kafka),
        recording_bytes_per_day=round(messages * figures.recorded_frame * DAY_S * is_recorded),
    )


def _of_channel(channel: str, figures: Figures) -> tuple[float, float]:
    """Return the CPU time of a row in ns, and its bytes in Kafka."""
    known = {
        "trades": (figures.trade_ns, figures.kafka_trade),
        "quotes": (figures.quote_ns, figures.kafka_quote),
        "book": (figures.level_ns, figures.kafka_level),
    }
    return known.get(channel, (figures.trade_ns, figures.kafka_other))


def capacity_text(found: Capacity, peak: float) -> str:
    """Return it as a few lines."""
    streams = ", ".join(f"{count:,} {channel}" for channel, count in found.streams.items())
    recording = f"{found.recording_bytes_per_day / GIB:,.1f} GiB a day"
    return "\n".join(
        [
            f"streams      {streams} on {found.connections:,} connections",
            f"messages     {found.messages_per_s:,.0f} a second, {found.rows_per_s:,.0f} rows",
            f"cores        {found.cores:.2f}, {found.peak_cores:.2f} at {peak:g} times the rate",
            f"workers      {found.workers}",
            f"memory       {found.memory_bytes / MIB:,.0f} MiB at most, with a full budget",
            f"Kafka        {found.kafka_bytes_per_day / GIB:,.1f} GiB a day, before replication",
            f"recording    {recording if found.recording_bytes_per_day else 'none'}",
        ]
    )


def parse_rates(texts: list[str]) -> dict[str, float]:
    """Return rates by channel of "CHANNEL=NUMBER".

    Raises:
        ConfigError: for one that is none.
    """
    rates: dict[str, float] = {}
    for text in texts:
        channel, _, number = text.partition("=")
        try:
            rates[channel] = float(number)
        except ValueError:
            rates[channel] = -1.0
        if not 0 <= rates[channel] < float("inf"):
            raise ConfigError(f"{text!r} is no CHANNEL=MESSAGES_A_SECOND", where="--rate")
    return rates
