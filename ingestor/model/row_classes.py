"""The table of row classes: everything that the program needs to know of each.

`ROW_CLASSES` is what everything else iterates over: the queue, the partitioner, metrics, the
staleness monitor, both codecs, Parquet, the consumer, schemas and the status page. A new class is
a dtype in `ingestor.model.rows` and an entry here (docs/adding-a-row-class.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model import row_values as values
from ingestor.model import rows as dtypes
from ingestor.model.rows import HEADER, LEVEL, QUOTE, TRADE, Cause, Flag, Kind, Rows, Side

RATE_EXPONENT: Final = 18
OWN_EXPONENT_MAX: Final = 30  # of the field `exponent`
SIDE_NAMES: Final[Mapping[int, str]] = {  # of trades
    Side.NONE: "none",
    Side.BID: "buy",
    Side.ASK: "sell",
}
BOOK_SIDE_NAMES: Final[Mapping[int, str]] = {Side.BID: "bid", Side.ASK: "ask"}

_EXPONENT_NOTE: Final = (
    "How many decimals the row's numbers have that the instrument says nothing of."
)
_ID_MAX: Final = 255
_CONTROL_AT: Final = (32, 40)  # offsets of `first` and `last`, behind the header
_HEADER_NAMES: Final = tuple(name for name, _ in HEADER)
_HEADER_SIZES: Final = [np.dtype(code).itemsize for _, code in HEADER]
_HEADER_OFFSETS: Final = [sum(_HEADER_SIZES[:place]) for place in range(len(HEADER))]


class Exponent(Enum):
    """The unit of a number: units of 10^-exponent. It also says which numbers are valid."""

    PRICE = "price"  # the exponent of the instrument's prices; above 0
    SIZE = "size"  # the exponent of the instrument's sizes; not below 0
    RATE = "rate"  # RATE_EXPONENT, for every instrument; any sign
    OWN = "own"  # what the field `exponent` of the row says; any sign


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RowClass:
    """One class of rows. There is one object for each, so that `is` compares them."""

    TRADE: ClassVar[RowClass]
    QUOTE: ClassVar[RowClass]
    LEVEL: ClassVar[RowClass]
    FUNDING: ClassVar[RowClass]
    MARK_PRICE: ClassVar[RowClass]
    OPEN_INTEREST: ClassVar[RowClass]
    LIQUIDATION: ClassVar[RowClass]
    CANDLE: ClassVar[RowClass]
    INSTRUMENT_STATUS: ClassVar[RowClass]
    ORDER: ClassVar[RowClass]
    BOOK_TOP: ClassVar[RowClass]
    BOOK_TOP_LAST: ClassVar[RowClass]

    id: int
    """Stands in binary records, and in the field `kind` of rows."""
    name: str
    """Stands in digests and logs: `TRADE`."""
    channel: str
    """What one subscribes to: `trades`. Also the stem of the topic, and the Parquet partition."""
    kind_name: str
    """The `kind` of a JSON record."""
    dtype: np.dtype[np.void]
    """Fields of a row: `rows.HEADER`, then integers; unpadded, a multiple of 8 bytes."""
    title: str
    """What a record is, for the schema."""
    numbers: Mapping[str, Exponent]
    """The fields that hold decimal numbers, in order of the dtype, with their units."""
    ids: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Names of 128-bit ids in JSON: fields of the high and the low half."""
    names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Fields whose values have names in JSON. `side` is in JSON only if it is here."""
    labels: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Names beside those of JSON, for people and frames."""
    optional: frozenset[str] = frozenset()
    """Fields that may be `rows.ABSENT`: `null` in JSON and in Parquet."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What fields mean, for the schema."""
    key_fields: tuple[str, ...] = ()
    """The fields that are part of a record's key, behind the instrument's."""
    resent_by: str = ""
    """The field that rises with every row, by which rows that are sent again are known; "" = none.
    """
    version: int = 1
    """Of the topic and the schema."""
    has_levels: bool = False
    """Whether a record holds the levels of one event, up to the row flagged LAST; else one row."""
    is_compacted: bool = False
    """Whether the topic keeps the last record of each key alone."""
    is_conflatable: bool = False
    """Whether a later row of a key may replace an earlier one when Kafka is slow."""
    is_standard: bool = False
    """Whether its topic is made at the start; others' are made once a feed asks for their channel,
    or a row of theirs comes."""
    control: np.dtype[np.void] = field(init=False, repr=False)
    """The view of a row that is GAP or RESET: `rows.view(row_class.control)`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "control", _control(self.dtype))
        fields = dict.fromkeys((*self.numbers, *self.names, *self.key_fields, *self.optional))
        if Exponent.OWN in self.numbers.values():
            fields["exponent"] = None
        halves = [half for pair in self.ids.values() for half in pair]
        missing = {*fields, *halves, self.resent_by or "sequence"} - {*(self.dtype.names or ())}
        if missing:
            raise ValueError(f"{self.name} has no fields {', '.join(sorted(missing))}")
        if any(self.dtype[name].str != "<i8" for name in (*self.numbers, *self.optional)):
            raise ValueError(f"{self.name}: numbers, and what may be absent, are of the type <i8")

    def __repr__(self) -> str:
        return f"RowClass.{self.name}"

    @property
    def topic(self) -> str:
        """The name of its topic, without the prefix."""
        return f"{self.channel}.v{self.version}"

    @property
    def schema(self) -> str:
        """The name of its schema: schemas/<name>.schema.json; `md.<name>` in headers."""
        return self.topic

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields behind the header, in order."""
        return (self.dtype.names or ())[len(_HEADER_NAMES) :]

    @property
    def exponents(self) -> tuple[Exponent, ...]:
        """The units of the numbers, in order."""
        return tuple(self.numbers.values())


def _control(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return the view of a control row. Raises ValueError for a dtype that is no class of rows."""
    header = [(name, dtype[name].str) for name in (dtype.names or ())[: len(HEADER)]]
    whole = sum(dtype[name].itemsize for name in dtype.names or ())
    if header != [(name, np.dtype(code).str) for name, code in HEADER]:
        raise ValueError("a row begins with the fields of rows.HEADER")
    if dtype.itemsize != whole or whole % 8 or whole < _CONTROL_AT[1] + 8:
        raise ValueError(f"a row of {whole} bytes; it is unpadded, of 48, 56, 64, ... bytes")
    if any(dtype[name].kind not in "iu" for name in dtype.names or ()):
        raise ValueError("a row holds integers alone")
    names = ["cause" if name == "side" else name for name in _HEADER_NAMES]
    view: np.dtype[np.void] = np.dtype(
        {
            "names": [*names, "first", "last"],
            "formats": [*(code for _, code in HEADER), "<i8", "<i8"],
            "offsets": [*_HEADER_OFFSETS, *_CONTROL_AT],
            "itemsize": dtype.itemsize,
        }
    )
    return view


class RowClasses:
    """The row classes that there are, in order of their ids."""

    def __init__(self, row_classes: Iterable[RowClass]) -> None:
        self._by_id: dict[int, RowClass] = {}
        self._by_channel: dict[str, RowClass] = {}
        for row_class in row_classes:
            self.add(row_class)

    def add(self, row_class: RowClass) -> RowClass:
        """Add a class, before anything is made that iterates over the table; return it.

        Raises ValueError for an id or a channel that is taken.
        """
        if not 0 < row_class.id <= _ID_MAX or row_class.id in {Kind.GAP, Kind.RESET}:
            raise ValueError(f"{row_class.id} is no id of a row class")
        if row_class.id in self._by_id or row_class.channel in self._by_channel:
            raise ValueError(f"{row_class.id} or {row_class.channel} is taken")
        self._by_id[row_class.id] = row_class
        self._by_channel[row_class.channel] = row_class
        return row_class

    def remove(self, row_class: RowClass) -> None:
        """Take a class out again."""
        del self._by_id[row_class.id], self._by_channel[row_class.channel]

    def __iter__(self) -> Iterator[RowClass]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def of_id(self, number: int) -> RowClass:
        """Return the class of an id. Raises KeyError."""
        return self._by_id[number]

    def of_channel(self, channel: str) -> RowClass:
        """Return the class of a channel. Raises KeyError."""
        return self._by_channel[channel]

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(self._by_channel)

    def kind_name(self, kind: int) -> str:
        """Return the `kind` of a JSON record. Raises KeyError."""
        return _CONTROL_NAMES.get(kind) or self._by_id[kind].kind_name


_CONTROL_NAMES: Final = {int(Kind.GAP): "gap", int(Kind.RESET): "reset"}

RowClass.TRADE = RowClass(
    id=1,
    name="TRADE",
    channel="trades",
    kind_name="trade",
    dtype=TRADE,
    title="One trade, or a gap",
    numbers={"price": Exponent.PRICE, "size": Exponent.SIZE},
    ids={"trade_id": ("trade_id_high", "trade_id_low")},
    names={"side": SIDE_NAMES},
    notes={
        "side": "The aggressor.",
        "flags": "Bits: 1 last row of a venue event, 2 snapshot, 4 the venue gave no time, "
        "8 partial snapshot, 32 block trade, 64 retail price improvement, 128 liquidation, "
        "256 automatic deleveraging, 512 insurance fund, 1024 auction, 2048 fetched later.",
    },
    resent_by="sequence",
    is_standard=True,
)
RowClass.QUOTE = RowClass(
    id=2,
    name="QUOTE",
    channel="quotes",
    kind_name="quote",
    dtype=QUOTE,
    title="The best bid and ask, or a gap",
    numbers={
        "bid_price": Exponent.PRICE,
        "bid_size": Exponent.SIZE,
        "ask_price": Exponent.PRICE,
        "ask_size": Exponent.SIZE,
    },
    is_conflatable=True,
    is_standard=True,
)
RowClass.LEVEL = RowClass(
    id=3,
    name="LEVEL",
    channel="book",
    kind_name="book",
    dtype=LEVEL,
    title="A book event or a part of one (flag 1 is on the last), a gap, or a reset",
    numbers={"price": Exponent.PRICE, "size": Exponent.SIZE},
    labels={"side": BOOK_SIDE_NAMES},
    notes={"price": "[price, size]; a size of 0 removes the level."},
    has_levels=True,
    is_standard=True,
)
RowClass.FUNDING = RowClass(
    id=8,
    name="FUNDING",
    channel="funding",
    kind_name="funding",
    dtype=dtypes.FUNDING,
    title="One funding rate, or a gap",
    numbers={"rate": Exponent.OWN},
    names={"state": values.names_of(values.FundingState)},
    optional=frozenset({"due_ns", "interval_ns"}),
    notes={
        "rate": "Of a position's value, for one interval. Above 0: who is long pays.",
        "due_ns": "When it is or was exchanged, ns since the Unix epoch.",
        "interval_ns": "Between two of them.",
        "exponent": _EXPONENT_NOTE,
    },
    key_fields=("state",),
    is_conflatable=True,
)
RowClass.MARK_PRICE = RowClass(
    id=9,
    name="MARK_PRICE",
    channel="mark_price",
    kind_name="mark_price",
    dtype=dtypes.MARK_PRICE,
    title="The mark, index and estimated settlement price, or a gap",
    numbers=dict.fromkeys(("mark_price", "index_price", "settle_price"), Exponent.OWN),
    optional=frozenset({"mark_price", "index_price", "settle_price"}),
    notes={"exponent": _EXPONENT_NOTE},
    is_conflatable=True,
)
RowClass.OPEN_INTEREST = RowClass(
    id=10,
    name="OPEN_INTEREST",
    channel="open_interest",
    kind_name="open_interest",
    dtype=dtypes.OPEN_INTEREST,
    title="The open interest, or a gap",
    numbers={"value": Exponent.OWN},
    names={"unit": values.names_of(values.InterestUnit)},
    notes={"exponent": _EXPONENT_NOTE},
    key_fields=("unit",),
    is_conflatable=True,
)
RowClass.LIQUIDATION = RowClass(
    id=11,
    name="LIQUIDATION",
    channel="liquidations",
    kind_name="liquidation",
    dtype=dtypes.LIQUIDATION,
    title="One liquidation, or a gap",
    numbers={"price": Exponent.OWN, "average_price": Exponent.OWN, "size": Exponent.SIZE},
    names={
        "side": SIDE_NAMES,
        "position": values.names_of(values.Position),
        "price_kind": values.names_of(values.PriceKind),
    },
    optional=frozenset({"price", "average_price"}),
    notes={
        "side": "Of the order that closes the position.",
        "exponent": _EXPONENT_NOTE,
        "flags": "Bits: 1 last row of a venue event, 4 the venue gave no time, 8192 the venue "
        "leaves some liquidations out.",
    },
)
RowClass.CANDLE = RowClass(
    id=12,
    name="CANDLE",
    channel="candles",
    kind_name="candle",
    dtype=dtypes.CANDLE,
    title="One state of a candle, or a gap",
    numbers={
        **dict.fromkeys(("open", "high", "low", "close"), Exponent.PRICE),
        **dict.fromkeys(("volume", "buy_volume"), Exponent.SIZE),
        "turnover": Exponent.OWN,
    },
    names={
        "state": values.names_of(values.CandleState),
        "origin": values.names_of(values.Origin),
    },
    optional=frozenset({"buy_volume", "turnover", "trades"}),
    notes={
        "start_ns": "ns since the Unix epoch.",
        "end_ns": "ns since the Unix epoch, exclusive.",
        "interval_ns": "Of a month: 30 days.",
        "buy_volume": "Of buyers that took liquidity.",
        "turnover": "Price times size, in what the instrument is settled in.",
        "exponent": _EXPONENT_NOTE,
        "flags": "Bits: 1 last row of a venue event, 2 sent when subscribing, 4 the venue gave no "
        "time, 8 trades may be missing in it.",
    },
    key_fields=("interval_ns", "start_ns", "origin"),
    is_conflatable=True,
)
RowClass.INSTRUMENT_STATUS = RowClass(
    id=13,
    name="INSTRUMENT_STATUS",
    channel="instrument_status",
    kind_name="instrument_status",
    dtype=dtypes.INSTRUMENT_STATUS,
    title="What may be done with an instrument, or a gap",
    numbers={},
    names={
        "state": values.names_of(values.InstrumentState),
        "scope": values.names_of(values.StatusScope),
    },
    optional=frozenset({"effective_ns", "until_ns"}),
    notes={
        "effective_ns": "From when on, ns since the Unix epoch.",
        "until_ns": "Until when, ns since the Unix epoch.",
    },
)
RowClass.ORDER = RowClass(
    id=14,
    name="ORDER",
    channel="orders",
    kind_name="order",
    dtype=dtypes.ORDER,
    title="One change of one order of a book, or a gap",
    numbers={"price": Exponent.PRICE, "size": Exponent.SIZE},
    ids={"order_id": ("order_id_high", "order_id_low")},
    names={
        "side": SIDE_NAMES,
        "action": values.names_of(values.OrderAction),
        "reason": values.names_of(values.OrderReason),
    },
    optional=frozenset({"price", "size"}),
    notes={"side": "Of the book.", "size": "What is left of the order."},
)

RowClass.BOOK_TOP = RowClass(
    id=15,
    name="BOOK_TOP",
    channel="book_top",
    kind_name="book_top",
    dtype=LEVEL,
    title="The best levels of a book at a fixed time, a gap, or a reset (no levels)",
    numbers={"price": Exponent.PRICE, "size": Exponent.SIZE},
    labels={"side": BOOK_SIDE_NAMES},
    notes={"price": "[price, size], the best level first."},
    has_levels=True,
)
RowClass.BOOK_TOP_LAST = RowClass(
    id=16,
    name="BOOK_TOP_LAST",
    channel="book_top_last",
    kind_name="book_top_last",
    dtype=LEVEL,
    title="The best levels of a book as they were last, a gap, or a reset (no levels)",
    numbers={"price": Exponent.PRICE, "size": Exponent.SIZE},
    labels={"side": BOOK_SIDE_NAMES},
    notes={"price": "[price, size], the best level first."},
    has_levels=True,
    is_compacted=True,
)

ROW_CLASSES: Final = RowClasses(
    (
        RowClass.TRADE,
        RowClass.QUOTE,
        RowClass.LEVEL,
        RowClass.FUNDING,
        RowClass.MARK_PRICE,
        RowClass.OPEN_INTEREST,
        RowClass.LIQUIDATION,
        RowClass.CANDLE,
        RowClass.INSTRUMENT_STATUS,
        RowClass.ORDER,
        RowClass.BOOK_TOP,
        RowClass.BOOK_TOP_LAST,
    )
)
STANDARD_CLASSES: Final = tuple(row_class for row_class in ROW_CLASSES if row_class.is_standard)


def is_control(rows: Rows) -> NDArray[np.bool_]:
    """Return which rows are GAP or RESET. rows: of any class."""
    control: NDArray[np.bool_] = (rows["kind"] | 1) == Kind.RESET  # 4 or 5
    return control


def control_row(
    row_class: RowClass,
    kind: Kind,
    instrument: int,
    ts_recv: int,
    *,
    cause: Cause | None = None,
    first: int = 0,
    last: int = 0,
) -> Rows:
    """Return a one-row array that holds a GAP or RESET row.

    Args:
        row_class: whose rows it stands among.
        kind: GAP or RESET.
        instrument: its number.
        ts_recv: ns.
        cause: why, of a GAP.
        first: the first missing sequence number, 0 where it is not known.
        last: the last one.
    """
    rows = np.zeros(1, row_class.dtype)
    row = rows.view(row_class.control)
    row["ts_event"] = row["ts_recv"] = ts_recv
    row["instrument"] = instrument
    row["flags"] = Flag.LAST | Flag.NO_VENUE_TIME
    row["kind"] = kind
    row["cause"] = cause or 0
    row["first"], row["last"] = first, last
    return rows
