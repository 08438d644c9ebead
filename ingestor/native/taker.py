"""Take frames with the compiled library: the rows of all markets, and the frames of one market."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import QUOTE, TRADE, UPDATE, Rows
from ingestor.native.layouts import (
    EXPONENT_MAX,
    OTHER_WIDTH,
    ROW_BYTES,
    COutput,
    CShapes,
    CTake,
    Op,
    address,
)
from ingestor.native.steps import CompiledShape, arrays_of
from ingestor.native.symbols import SymbolTable

ROWS_ROOM: Final = 4_096  # of each class, at first; what they hold still is in the cache
LEVELS_ROOM: Final = 16_384
OTHERS_MAX: Final = 256  # of one call
_DTYPES: Final = (TRADE, QUOTE, UPDATE)

_Scalar = TypeVar("_Scalar", bound=np.generic)

NameOf = tuple[str, int, int, int]  # symbol, number, exponents of price and size


class FrameCounter(Protocol):
    """Follow the numbers of a connection's frames. next_number: that of the next one."""

    next_number: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows that the library made, in order, and the frame that each came with.

    trades, quotes, updates: arrays of TRADE, QUOTE and UPDATE. trade_frames, quote_frames: int64.
    levels: int64[n, 2], price and size of the updates' levels. payload_bytes: of the frames that
    were cut from reads, whose payloads are not kept.
    """

    trades: Rows
    quotes: Rows
    updates: Rows
    trade_frames: NDArray[np.int64]
    quote_frames: NDArray[np.int64]
    levels: NDArray[np.int64]
    payload_bytes: int

    @property
    def update_frames(self) -> NDArray[np.int64]:
        return self.updates["frame"].astype(np.int64)


class TakenRows:
    """Hold the rows of the library until they are sealed."""

    def __init__(self, rows_room: int = ROWS_ROOM, levels_room: int = LEVELS_ROOM) -> None:
        self._memory = COutput()
        self._words = np.frombuffer(memoryview(self._memory), np.uint64)
        self._rows: list[NDArray[np.uint8]] = [np.empty(0, np.uint8) for _ in _DTYPES]
        self._frames: list[NDArray[np.int64]] = [np.empty(0, np.int64) for _ in _DTYPES]
        self._levels: NDArray[np.int64] = np.empty((0, 2), np.int64)
        self._asks: NDArray[np.int64] = self._levels
        self.payload_bytes = 0
        self._resize(rows_room, levels_room)

    @property
    def address(self) -> int:
        return ctypes.addressof(self._memory)

    @property
    def rows(self) -> int:
        """Return how many trades, quotes and price levels wait."""
        words = self._words
        return int(words[2] + words[6] + words[14])  # used: trades, quotes; levels_used

    @property
    def is_empty(self) -> bool:
        return not any(rows.used for rows in self._memory.rows)

    def grow(self) -> None:
        """Make room for twice as much: one batch had no end."""
        self._resize(2 * self._memory.rows[0].room, 2 * self._memory.levels_room)

    def _resize(self, rows_room: int, levels_room: int) -> None:
        memory = self._memory
        for index, rows in enumerate(memory.rows):
            self._rows[index] = _enlarged(self._rows[index], rows_room * ROW_BYTES)
            self._frames[index] = _enlarged(self._frames[index], rows_room)
            rows.rows, rows.frames = address(self._rows[index]), address(self._frames[index])
            rows.room = rows_room
        self._levels = _enlarged(self._levels, levels_room)
        self._asks = np.empty((levels_room, 2), np.int64)
        memory.levels, memory.asks = address(self._levels), address(self._asks)
        memory.levels_room = levels_room

    def take_out(self) -> Taken:
        """Return all rows, and start anew."""
        used = [rows.used for rows in self._memory.rows]
        trades, quotes, updates = (
            rows[: count * ROW_BYTES].copy().view(dtype)
            for rows, count, dtype in zip(self._rows, used, _DTYPES, strict=True)
        )
        taken = Taken(
            trades,
            quotes,
            updates,
            self._frames[0][: used[0]].copy(),
            self._frames[1][: used[1]].copy(),
            self._levels[: self._memory.levels_used].copy(),
            self.payload_bytes,
        )
        for rows in self._memory.rows:
            rows.used = 0
        self._memory.levels_used = 0
        self.payload_bytes = 0
        return taken


def _enlarged(array: NDArray[_Scalar], length: int) -> NDArray[_Scalar]:
    larger: NDArray[_Scalar] = np.empty((length, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


class FrameTaker:
    """Reads one market's frames.

    frames: how many were taken since the start. is_counted: whether each frame of a connection has
    a number, so that one is taken only if it has the next one.
    """

    def __init__(
        self, library: ctypes.CDLL, shapes: Sequence[CompiledShape], rows: TakenRows
    ) -> None:
        """rows: gets what is taken."""
        self.rows = rows
        self._classes = [shape.row_class for shape in shapes]
        self._arrays = arrays_of(shapes)
        self._table = SymbolTable(library)
        self._take = library.native_take
        self._take_each = library.native_take_each
        self._counts = np.zeros(len(shapes), np.uint64)
        counted = [any(step.kind is Op.COUNT for step in shape.steps) for shape in shapes]
        self.is_counted = any(counted)
        if self.is_counted and not all(counted):
            raise ValueError("some shapes of a market have <next>, others have not")
        self._others_max = 1 if self.is_counted else OTHERS_MAX
        self._others = np.zeros((self._others_max, OTHER_WIDTH), np.int64)
        self._shapes = CShapes(
            operations=address(self._arrays.operations),
            shapes=address(self._arrays.shapes),
            texts=address(self._arrays.texts),
            taken=address(self._counts),
            shape_count=len(shapes),
            is_counted=self.is_counted,
        )
        self._block = CTake(
            shapes=ctypes.addressof(self._shapes),
            output=rows.address,
            others=address(self._others),
            others_max=self._others_max,
        )
        self._address = ctypes.addressof(self._block)
        self.frames = 0
        self.set_symbols(())

    @property
    def frames_by_shape(self) -> list[int]:
        return [int(count) for count in self._counts]

    def frames_by_class(self) -> dict[RowClass, int]:
        """Return how many frames the shapes of each class took."""
        frames: dict[RowClass, int] = {}
        for row_class, count in zip(self._classes, self.frames_by_shape, strict=True):
            frames[row_class] = frames.get(row_class, 0) + count
        return frames

    def set_symbols(self, names: Iterable[NameOf]) -> None:
        """Know these symbols, and no others. Those that JSON escapes stay unknown."""
        self._table.set(
            (symbol.encode(), number, (price_exponent, size_exponent))
            for symbol, number, price_exponent, size_exponent in names
            if symbol
            and symbol.isprintable()
            and not {'"', "\\"} & {*symbol}
            and 0 <= price_exponent <= EXPONENT_MAX
            and 0 <= size_exponent <= EXPONENT_MAX
        )
        self._table.show(self._shapes)

    def take_each(
        self,
        payloads: Sequence[bytes],
        ts_recv: Sequence[int],
        first_frame: int,
        counters: Sequence[FrameCounter] = (),
    ) -> Iterator[list[int]]:
        """Take payloads; yield the places of those that no shape takes, some at a time.

        Where frames are counted, each of these must be decoded before the next is asked for: it
        changes the number that is expected.

        Args:
            payloads: whole messages.
            ts_recv: of each, ns since the epoch.
            first_frame: the number of the first one's frame; others follow.
            counters: of each, that of its connection, where frames are counted.
        """
        count = len(payloads)
        assert len(counters) == count * self.is_counted, "a counter for each"
        try:
            times = array("q", ts_recv)
        except (OverflowError, TypeError):
            yield list(range(count))  # no times: the Python way says so
            return
        sizes = array("q", map(len, payloads))
        data = b"".join(payloads)
        addresses = sizes.buffer_info()[0], times.buffer_info()[0]
        numbers = _Numbers(counters)
        block, at = self._block, 0
        while True:
            numbers.lend(block)
            at = self._take_each(self._address, data, *addresses, at, count, first_frame)
            numbers.take_back()
            self.frames += block.frames
            is_full, others_count = block.is_full, block.others_count
            if others_count:
                yield self._others[:others_count, 0].tolist()
            if not is_full:
                return
            if others_count < self._others_max:
                self.rows.grow()

    def take_read(
        self,
        data: bytes,
        at: int,
        longest: int,
        ts_recv: int,
        frame: int,
        counter: FrameCounter | None = None,
    ) -> tuple[int, int, bool, list[list[int]]]:
        """Take the whole frames of a read.

        Args:
            data: what was read.
            at: where a frame begins.
            longest: the most bytes that a payload may have.
            ts_recv: when it was read, ns since the epoch.
            frame: the number of the frames that are taken, as of `frame` + 2k after k others.
            counter: the connection's, where frames are counted.

        Returns:
            Where that ended; how many frames were taken; whether it ended for want of room, or
            since one that is counted must be decoded first; and offset, length and frame number of
            each frame that no shape takes.
        """
        block = self._block
        if counter is not None:
            self._shapes.next = counter.next_number
        end = self._take(self._address, data, len(data), at, longest, ts_recv, frame)
        if counter is not None:
            counter.next_number = self._shapes.next
        taken = block.frames
        self.frames += taken
        self.rows.payload_bytes += block.bytes
        others = self._others[: block.others_count].tolist() if block.others_count else []
        return end, taken, bool(block.is_full), others


class _Numbers:
    """The numbers that some connections expect, in memory that the library reads and writes."""

    def __init__(self, counters: Sequence[FrameCounter]) -> None:
        """counters: of each payload."""
        distinct = {id(counter): counter for counter in counters}
        places = {key: place for place, key in enumerate(distinct)}
        self._counters = list(distinct.values())
        self._connections = array("Q", [places[id(counter)] for counter in counters])
        self._next = array("Q", bytes(8 * len(distinct)))

    def lend(self, block: CTake) -> None:
        """Write what is expected now."""
        if not self._counters:
            return
        for place, counter in enumerate(self._counters):
            self._next[place] = counter.next_number
        block.connections = self._connections.buffer_info()[0]
        block.next = self._next.buffer_info()[0]

    def take_back(self) -> None:
        """Let the connections know what is expected now."""
        for counter, number in zip(self._counters, self._next, strict=True):
            counter.next_number = number
