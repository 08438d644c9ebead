"""A shape: one kind of frame as its venue's document prints it, with holes where values stand.

| hole | takes | gives |
|---|---|---|
| `<symbol>` | a symbol of the market | the instrument, and the exponents of what follows |
| `<price:F>`, `<size:F>` | 18 digits at most, perhaps with a point | the field, in units |
| `<same:F>` | the number that the hole of price or size F took | nothing |
| `<int:F>`, `<int:F,G>`, `<int:F>=2>` | digits, at least so much | the fields |
| `<low:F>` | digits below 2^63 | the low 32 bits |
| `<next>`, `<next:F,G>` | the number that the connection's next frame has | nothing; the fields |
| `<ms:F>`, `<ns:F>`, `<iso:F>` | ms, ns, RFC 3339 in UTC: 2010 to 2100 | ns since the epoch |
| `<uuid>` | a lower-case UUID | the two halves of a trade id |
| `<F:a=1|b=2>` | one of these texts | a byte |
| `<[>` ... `<]>`, `<[*>` ... `<]>` | an array of one or more, of none or more | what is between |
| `<level>`, `<level:bids>` | nothing | ends a level, of the side that was read or of this one |
| `<row>` | nothing | ends a row; put at the end where there is none |
| `<text>` | printable ASCII without quote and backslash | not read |
| `<word>` | ASCII letters, digits, "_" and "-" | not read |
| `<n>`, `<number>` | digits; a JSON number without exponent | not read |

Inside a level, `<price>`, `<size>` and `<side:bid=1|offer=2>` belong to the level. A frame is taken
only if it is exactly such a text, without any blank, sign, exponent, escape or leading zero. Every
other frame goes to the adapter's `decode`, which stays the reference for what a frame means: it
must give the same rows for each frame that a shape takes. `tests/feeds/test_shapes.py` compares.

Where one shape of a market has `<next>`, all have it, and the adapter is one that `CountsFrames`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import QUOTE, TRADE, UPDATE, Flag
from ingestor.model.timestamps import MILLISECOND, TIME_MAX, TIME_MIN
from ingestor.native import CompiledShape, Step
from ingestor.native.layouts import CHOICES_MAX, LEVEL_PRICE, LEVEL_SIDE, LEVEL_SIZE, Op

_DTYPES: Final = {RowClass.TRADE: TRADE, RowClass.QUOTE: QUOTE, RowClass.LEVEL: UPDATE}
_HOLE: Final = re.compile(r"<((?:[^<>]|>=)*)>")
_LEVEL_FIELDS: Final = {"price": LEVEL_PRICE, "size": LEVEL_SIZE, "side": LEVEL_SIDE}
_SIDES: Final = {"": 0, "bids": 1, "asks": 2}
_TIMES: Final = {"ms": (Op.MS, MILLISECOND), "ns": (Op.INTEGER, 1), "iso": (Op.ISO, 1)}
_UNREAD: Final = {"text": Op.TEXT, "word": Op.WORD, "n": Op.DIGITS, "number": Op.NUMBER}
_INT_MAX: Final = 2**63 - 1
# What each class's rows may leave as the template has it.
_OPTIONAL: Final = {
    RowClass.TRADE: {"ts_event", "sequence", "trade_id_high", "trade_id_low"},
    RowClass.QUOTE: {"ts_event", "sequence", "side"},
    RowClass.LEVEL: {"ts_event", "first", "last", "previous", "check_value"},
}
# What no hole fills: it comes from elsewhere.
_OURS: Final = {"ts_recv", "flags", "kind", "bids", "asks", "frame", "spare"}


@runtime_checkable
class HasShapes(Protocol):
    """Declare the texts of frequent frames: an adapter may do that besides `decode`."""

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        """Return the shapes of a market's frames, the most frequent first."""


def shape(
    row_class: RowClass, text: str, *, newest_first: bool = False, **constants: int
) -> CompiledShape:
    """Compile the declaration of a shape.

    Args:
        row_class: of the rows.
        text: the frame, with holes.
        newest_first: whether the rows of a frame stand in reverse order.
        constants: fields that are the same in all rows, such as `flags`.

    Raises:
        ValueError: the declaration breaks a rule; it names the hole.
    """
    compiler = _Compiler(row_class, constants)
    compiler.compile(text)
    return CompiledShape(row_class, compiler.row(), tuple(compiler.steps), newest_first, text)


class _Compiler:
    """Makes the steps of one shape."""

    def __init__(self, row_class: RowClass, constants: Mapping[str, int]) -> None:
        self.steps: list[Step] = []
        self._class = row_class
        self._dtype = _DTYPES[row_class]
        self._constants = constants
        self._filled = {*constants}
        self._opened: list[int] = []  # indices of the steps that begin an array
        self._knows_symbol = False

    def compile(self, text: str) -> None:
        place = 0
        for hole in _HOLE.finditer(text):
            self._literal(text[place : hole.start()])
            place = hole.end()
            try:
                self._hole(hole[1])
            except (KeyError, ValueError) as failure:
                raise ValueError(f"<{hole[1]}> in {text!r}: {failure}") from None
        self._literal(text[place:])
        if not any(step.kind is Op.ROW for step in self.steps):
            self.steps.append(Step(Op.ROW))
        self.steps.append(Step(Op.END))
        if self._opened:
            raise ValueError(f"an array without its end in {text!r}")
        names = self._dtype.names or ()
        missing = {*names} - self._filled - _OPTIONAL[self._class] - _OURS
        if missing:
            raise ValueError(f"no hole for {', '.join(sorted(missing))} in {text!r}")

    def row(self) -> bytes:
        """Return what every row begins as."""
        row = np.zeros(1, self._dtype)
        if self._class is not RowClass.LEVEL:
            row["kind"], row["flags"] = self._class.id, Flag.LAST
        for name, value in self._constants.items():
            row[name] = value
        return row.tobytes()

    def _literal(self, text: str) -> None:
        if "<" in text or ">" in text:
            raise ValueError(f"{text!r} is no hole")
        if text:
            self.steps.append(Step(Op.LITERAL, text=text.encode()))

    def _hole(self, hole: str) -> None:
        name, _, rest = hole.partition(":")
        if hole in _UNREAD:
            self.steps.append(Step(_UNREAD[hole]))
            return
        match name:
            case "symbol":
                self._knows_symbol = True
                self.steps.append(Step(Op.SYMBOL, at=self._at("instrument")))
            case "price" | "size":
                self._decimal(name, rest)
            case "same":
                self._same(rest)
            case "int" | "low":
                self._integer(name, rest)
            case "next":
                self._count(rest)
            case "ms" | "ns" | "iso":
                kind, unit = _TIMES[name]
                least, most = TIME_MIN // unit, TIME_MAX // unit
                self.steps.append(Step(kind, width=8, at=self._at(rest), least=least, most=most))
            case "uuid":
                high, low = self._at("trade_id_high"), self._at("trade_id_low")
                self.steps.append(Step(Op.UUID, at=high, at2=low))
            case "[" | "[*":
                self._opened.append(len(self.steps))
                self.steps.append(Step(Op.EACH, width=int(name == "[")))
            case "]":
                self._close()
            case "level" | "row":
                is_row = name == "row"
                self.steps.append(Step(Op.ROW) if is_row else Step(Op.LEVEL, width=_SIDES[rest]))
            case _:
                self._choice(name, rest)

    def _at(self, field: str, size: int = 8) -> int:
        """Return where a field stands, which is filled from here on. size: bytes it must have."""
        if self._class is RowClass.LEVEL and field in _LEVEL_FIELDS:
            return _LEVEL_FIELDS[field]
        assert self._dtype.fields is not None
        if field not in self._dtype.fields:
            raise ValueError(f"the class has no field {field!r}")
        dtype, at = self._dtype.fields[field][:2]
        if dtype.itemsize > size:
            raise ValueError(f"{field} has {dtype.itemsize} bytes")
        self._filled.add(field)
        return int(at)

    def _decimal(self, name: str, field: str) -> None:
        if not self._knows_symbol:
            raise ValueError("a number before its symbol")
        field = field or name
        is_price = name == "price"
        # A price is above 0 but for that of an empty side of a quote, which the library sees to;
        # so is the size of a trade.
        is_positive = self._class is RowClass.TRADE or (self._class is RowClass.LEVEL and is_price)
        if self._class is not RowClass.LEVEL and field not in self._class.numbers:
            raise ValueError(f"{field!r} is no price or size of the class")
        self.steps.append(
            Step(Op.DECIMAL, width=int(not is_price), at=self._at(field), least=int(is_positive))
        )

    def _same(self, field: str) -> None:
        """Take a number that must be the one of an earlier hole."""
        assert self._dtype.fields is not None
        at = self._dtype.fields[field][1]
        earlier = [step for step in self.steps if step.kind is Op.DECIMAL and step.at == at]
        if not earlier:
            raise ValueError(f"no hole before it took {field!r}")
        self.steps.append(Step(Op.SAME, width=earlier[0].width, at=at))

    def _integer(self, name: str, rest: str) -> None:
        fields, _, least = rest.partition(">=")
        field, _, second = fields.partition(",")
        at = self._at(field)
        width = self._dtype[field].itemsize
        most = _INT_MAX if name == "low" or width == 8 else 2 ** (8 * width) - 1
        at2 = self._at(second) if second else 0
        if second and self._dtype[second].itemsize != width:
            raise ValueError(f"{field} and {second} have different sizes")
        if name == "low":
            width = 4
        self.steps.append(
            Step(Op.INTEGER, width=width, at=at, at2=at2, least=int(least or 0), most=most)
        )

    def _count(self, rest: str) -> None:
        """Take the number that is expected. rest: up to two fields of 8 bytes."""
        places = [self._at(field) for field in rest.split(",") if rest]
        if any(self._dtype[field].itemsize != 8 for field in rest.split(",") if rest):
            raise ValueError("fields of 8 bytes")
        at, at2 = (*places, 0, 0)[:2]
        self.steps.append(Step(Op.COUNT, width=8 * bool(places), at=at, at2=at2))

    def _choice(self, field: str, rest: str) -> None:
        pairs = [choice.rpartition("=") for choice in rest.split("|")]
        choices = tuple((text.encode(), int(value)) for text, _, value in pairs)
        if not 0 < len(choices) <= CHOICES_MAX or not all(text for text, _ in choices):
            raise ValueError(f"one to {CHOICES_MAX} texts, each with a value")
        self.steps.append(Step(Op.CHOICE, at=self._at(field, 1), choices=choices))

    def _close(self) -> None:
        if not self._opened:
            raise ValueError("the end of no array")
        begin = self._opened.pop()
        end = len(self.steps)
        self.steps[begin] = Step(Op.EACH, width=self.steps[begin].width, jump=end)
        self.steps.append(Step(Op.NEXT, jump=begin))


def level_pairs(side: str) -> str:
    """Return the shape of one side of a book: an array of pairs of text. side: bids or asks."""
    return f'<[*>["<price>","<size>"]<level:{side}><]>'


def shapes_of(adapter: Any, market: str) -> Sequence[CompiledShape]:
    """Return what an adapter declares for a market, nothing where it declares none."""
    return adapter.shapes(market) if isinstance(adapter, HasShapes) else ()
