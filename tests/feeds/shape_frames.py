"""Frames made from shapes, and what becomes of them when a few bytes change."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.timestamps import MILLISECOND, TIME_MAX, TIME_MIN, iso_text
from ingestor.native import CompiledShape, Step
from ingestor.native.layouts import Op

# Symbol, tick size, lot size: exponents at their edges, letters beyond ASCII.
NAMES = (
    ("BTCUSDT", "0.01", "0.00001"),
    ("PEPE-USD", "0.00000001", "1"),
    ("XBT/EUR", "1", "1"),
    ("FINE_PERP", "0.000000000000000001", "0.1"),
    ("币安人生USDT", "0.0001", "0.000000000000000001"),
)
_BITS = (
    *(b"e5", b"E-2", b"-", b"+", b".", b"..", b"0", b"00", b"9" * 19, b"NaN", b"null", b"true"),
    *(b'"', b"\\", b"\\u0030", b"\x00", b"\xff", b" ", b",", b"{", b"}", b"[", b"]", b"1e400"),
    *(b"0.000000001", b'"p":"1",', b'"s":"BTCUSDT",', b"9" * 21, b"\xe5\xb8\x81", b"T24:00:00"),
    *(b"-0", b'["1","2"],', b"Infinity", b":60Z", b"02-29T", b"02-30T", b"18446744073709551616"),
)
_LIKELY = b'0123456789.eE+-"{}[],:\\ truefalsn'


def table_of(venue: str, market: str) -> InstrumentTable:
    """Return a table of the symbols that made frames name."""
    return InstrumentTable(
        instrument(venue, market, symbol, f"C{number}-USD", f"C{number}", "USD", tick, lot)
        for number, (symbol, tick, lot) in enumerate(NAMES)
    )


def make(shape: CompiledShape, random: Random, number: int = 0) -> bytes:
    """Return a frame of this shape, or nearly one: its numbers need not fit their symbol.
    number: of the frame, where frames are counted."""
    made: list[bytes] = []
    decimals: dict[int, bytes] = {}
    steps, at = shape.steps, 0
    symbol = random.choice(NAMES)
    while at < len(steps):
        step = steps[at]
        if step.kind is Op.EACH:
            made.append(b"[")
            if not step.width and random.random() < 0.2:
                made.append(b"]")
                at = step.jump
        elif step.kind is Op.NEXT:
            another = random.random() < 0.4
            made.append(b"," if another else b"]")
            if another:
                at = step.jump
        elif step.kind is Op.SYMBOL:
            made.append(symbol[0].encode())
        elif step.kind is Op.COUNT:
            made.append(b"%d" % number)
        elif step.kind is Op.SAME and random.random() < 0.8:
            made.append(decimals[step.at])
        else:
            made.append(_value(step, symbol, random))
            if step.kind is Op.DECIMAL:
                decimals[step.at] = made[-1]
        at += 1
    return b"".join(made)


def _value(step: Step, symbol: tuple[str, str, str], random: Random) -> bytes:
    match step.kind:
        case Op.LITERAL:
            return step.text
        case Op.INTEGER if step.least == TIME_MIN:
            return b"%d" % random.randrange(TIME_MIN, TIME_MAX)
        case Op.INTEGER:
            wide = random.choice((step.least, step.most, random.getrandbits(63)))
            return b"%d" % random.choice((wide, random.randrange(10 ** random.randrange(1, 12))))
        case Op.MS:
            return b"%d" % (random.randrange(TIME_MIN, TIME_MAX) // MILLISECOND)
        case Op.ISO:
            text = iso_text(random.randrange(TIME_MIN, TIME_MAX))[:-1]
            return text[: random.choice((19, 21, 23, 26, 29))].encode() + b"Z"
        case Op.DECIMAL | Op.SAME:
            return _decimal(symbol[1 + step.width], random)
        case Op.CHOICE:
            return random.choice(step.choices)[0]
        case Op.UUID:
            digits = f"{random.getrandbits(128):032x}"
            parts = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
            return "-".join(parts).encode()
        case Op.DIGITS:
            return b"%d" % random.randrange(10**13)
        case Op.NUMBER:
            return random.choice((b"0", b"-1.5", b"12", b"0.0001"))
        case Op.TEXT | Op.WORD:
            return random.choice((b"x", b"BTCUSDT", b"a-b_2"))
    return b""


def _decimal(increment: str, random: Random) -> bytes:
    exponent = len(increment.partition(".")[2])
    decimals = exponent + random.choice((-1, *(0,) * 30, 1))
    digits_max = 1 + random.randrange(max(1, min(11, 17 - exponent)))
    whole = random.choice((b"0", b"%d" % random.randrange(10**digits_max)))
    if decimals <= 0:
        return whole
    digits = b"%0*d" % (decimals, random.randrange(10**decimals))
    return whole + b"." + digits + random.choice((b"",) * 9 + (b"0", b"000"))


def mutate(frame: bytes, random: Random) -> bytes:
    """Return the frame with none to three changes."""
    mutated = bytearray(frame)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        at = random.randrange(len(mutated) + 1)
        match random.randrange(7):
            case 0 if at < len(mutated):
                mutated[at] = random.randrange(256)
            case 1 if at < len(mutated):
                mutated[at] = random.choice(_LIKELY)
            case 2:
                mutated[at:at] = random.choice(_BITS)
            case 3:
                del mutated[at : at + random.randrange(1, 6)]
            case 4:
                start = random.randrange(len(mutated) + 1)
                mutated[at:at] = mutated[start : start + random.randrange(1, 30)]
            case 5:
                del mutated[at:]
            case _:
                mutated += random.choice(_BITS)
    return bytes(mutated)


def header(payload: bytes) -> bytes:
    """Return a websocket frame with this payload, as a server sends it."""
    if len(payload) < 126:
        return bytes([0x81, len(payload)]) + payload
    return bytes([0x81, 126]) + len(payload).to_bytes(2, "big") + payload


def mixed(shapes: Sequence[CompiledShape], count: int, random: Random) -> list[bytes]:
    """Return so many mutated frames of all shapes."""
    return [mutate(make(random.choice(shapes), random), random) for _ in range(count)]
