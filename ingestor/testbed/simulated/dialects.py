"""Speak the simulated venue's own dialect, or that of a venue in `emulator/venues/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import orjson

from ingestor.model.errors import ConfigError
from ingestor.testbed.emulator.registry import module_of
from ingestor.testbed.simulated.market import (
    LOT_SIZE,
    TICK_SIZE,
    Encoded,
    Event,
    PriceWalk,
    Shape,
    State,
    make_walk,
)

Kind = Literal["trade", "aggregate", "quote", "book"]
OWN: Final = "simulated"  # the name of the dialect of feeds/simulated.py


class Dialect(Protocol):
    """A venue's way of saying what happens."""

    def symbol(self, number: int) -> str: ...
    def split(self, stream: str) -> tuple[Kind, str] | None:
        """Return kind and symbol of a stream's name, None when it is none."""

    def event(self, kind: Kind, event: Event) -> str: ...
    def snapshot(self, state: State) -> str | None:
        """Return what the venue sends on subscribing to a book; None = nothing."""

    def instruments(self, symbols: Sequence[str]) -> tuple[str, bytes]:
        """Return path and body of the REST answer that lists the instruments."""

    def depth(self, state: State) -> tuple[str, str] | None:
        """Return path and body (with marks) of the REST book snapshot, None = it has none."""

    def request(self, message: Any) -> tuple[bool, list[str]] | None:
        """Return (subscribe?, streams) of a client's message, None for anything else."""

    def answer(self, message: Any, good: list[str], bad: list[str]) -> list[bytes]:
        """Return the answers to a request.

        Args:
            message: The parsed message.
            good: Streams that exist.
            bad: Streams that do not.
        """


class SimulatedDialect:
    """feeds/simulated.py documents it."""

    def symbol(self, number: int) -> str:
        return f"S{number:05}-USD"

    def split(self, stream: str) -> tuple[Kind, str] | None:
        kind, _, symbol = stream.partition(":")
        match kind:
            case "trade" | "quote" | "book":
                return kind, symbol
        return None

    def event(self, kind: Kind, event: Event) -> str:
        if kind == "trade":
            side = "buy" if event.is_buy else "sell"
            return (
                f'{{"ch":"trade","s":"@S","t":@T,"i":@N,"p":"{event.price}","q":"{event.size}",'
                f'"m":"{side}"}}'
            )
        if kind == "quote":
            bid, bid_size, ask, ask_size = event.quote
            return (
                f'{{"ch":"quote","s":"@S","t":@T,"u":@N,"b":["{bid}","{bid_size}"],'
                f'"a":["{ask}","{ask_size}"]}}'
            )
        return (
            f'{{"ch":"book","s":"@S","t":@T,"U":@N,"u":@N,"b":{json_text(event.bids)},'
            f'"a":{json_text(event.asks)}}}'
        )

    def snapshot(self, state: State) -> str | None:
        bids, asks = state.levels()
        return (
            f'{{"ch":"snapshot","s":"@S","t":@T,"u":@N,"b":{json_text(bids)},'
            f'"a":{json_text(asks)}}}'
        )

    def instruments(self, symbols: Sequence[str]) -> tuple[str, bytes]:
        listed = [
            {
                "symbol": symbol,
                "base": symbol.partition("-")[0],
                "quote": symbol.partition("-")[2],
                "tick_size": TICK_SIZE,
                "lot_size": LOT_SIZE,
                "trading": True,
            }
            for symbol in symbols
        ]
        return "/instruments", orjson.dumps({"instruments": listed})

    def depth(self, state: State) -> tuple[str, str] | None:
        return None

    def request(self, message: Any) -> tuple[bool, list[str]] | None:
        match message:
            case {"op": "subscribe" | "unsubscribe" as operation, "streams": [*streams]}:
                return operation == "subscribe", streams
        return None

    def answer(self, message: Any, good: list[str], bad: list[str]) -> list[bytes]:
        """Return the answers to a request.

        Args:
            message: The parsed message.
            good: Streams that exist.
            bad: Streams that do not.
        """
        answers = [orjson.dumps({"op": "ack", "streams": good})] if good else []
        if bad:
            text = "no such stream"
            answers.append(orjson.dumps({"op": "error", "streams": bad, "text": text}))
        return answers


def dialect_of(name: str) -> Dialect:
    """Return the dialect of a name: the simulated venue's own, or that of an emulated venue.

    Raises ConfigError where no venue's module has one.
    """
    if name == OWN:
        return SimulatedDialect()
    make: Callable[[], Dialect] | None = getattr(module_of(name), "dialect", None)
    if make is None:
        raise ConfigError(f"the simulated venue has no dialect {name!r}")
    return make()


@dataclass(slots=True)
class Book:
    """Walks of one dialect, encoded when they are first needed."""

    dialect: Dialect
    shape: Shape
    symbol_bytes: int
    walks: list[PriceWalk]
    _events: dict[tuple[int, Kind], list[Encoded]] = field(default_factory=dict)
    _snapshots: dict[tuple[int, int], Encoded | None] = field(default_factory=dict)

    def events(self, price_walk: int, kind: Kind) -> list[Encoded]:
        """Return the encoded events of one kind, in order."""
        found = self._events.get((price_walk, kind))
        if found is None:
            found = self._events[price_walk, kind] = [
                Encoded(self.dialect.event(kind, event), self.symbol_bytes)
                for event in self.walks[price_walk].events
            ]
        return found

    def snapshot(self, price_walk: int, place: int) -> Encoded | None:
        """Return the encoded snapshot of the state after event `place`."""
        if (price_walk, place) not in self._snapshots:
            text = self.dialect.snapshot(self.walks[price_walk].states[place])
            encoded = None if text is None else Encoded(text, self.symbol_bytes)
            self._snapshots[price_walk, place] = encoded
        return self._snapshots[price_walk, place]


def make_book(name: str, shape: Shape, seed: int) -> Book:
    """Return the walks of a dialect.

    Args:
        name: of the dialect, as `dialect_of` takes it.
        shape: sizes of the books and of their updates.
        seed: the same gives the same.

    Raises:
        ConfigError: there is no such dialect.
    """
    dialect = dialect_of(name)
    walks = [make_walk(seed * 1_000 + number, shape) for number in range(shape.walks)]
    return Book(dialect, shape, len(dialect.symbol(0)), walks)


def json_text(value: object) -> str:
    """Return a value as JSON."""
    return orjson.dumps(value).decode()
