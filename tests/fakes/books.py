"""What the tests of books share: a venue that speaks through a real ColumnBuffer, and models."""

from __future__ import annotations

from collections.abc import Sequence

from ingestor.adapter import BookRule, Continuity, SnapshotSource
from ingestor.books.manager import BookManager
from ingestor.books.output import BookOutput
from ingestor.books.settings import BookSettings
from ingestor.columns.buffer import ColumnBuffer
from ingestor.consumer.orderbook import OrderBooks
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows, Side
from ingestor.model.timestamps import SECOND

START = 1_800_000_000 * SECOND
Pairs = Sequence[tuple[int, int]]

SPOT = BookRule(Continuity.RANGE, SnapshotSource.REST, verify_with_quotes=True)
FUTURES = BookRule(Continuity.PREVIOUS, SnapshotSource.REST, verify_with_quotes=True)
SOCKET = BookRule(Continuity.INCREMENT)
OKX = BookRule(Continuity.PREVIOUS)
UNNUMBERED = BookRule(Continuity.NONE)

BIDS, ASKS = [(10, 5), (9, 4)], [(11, 6), (12, 7)]
IMAGE = ["RESET", "b10=5*", "b9=4*", "a11=6*", "a12=7*."]


class Connection:
    """A Source: the instruments subscribed to."""

    def __init__(self, instruments: Sequence[int]) -> None:
        self._instruments = instruments

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return self._instruments

    def count_refused(self, reason: str) -> None:
        self.refused = reason


class BookHarness:
    """Two instruments of one market with whole-number prices and sizes, and their books.

    Each call appends to the buffer; `flush` seals it, applies it, feeds a strategy's OrderBooks
    with what was published, and checks that every level is accounted for.
    """

    def __init__(self, rule: BookRule, settings: BookSettings | None = None) -> None:
        self.table = InstrumentTable(
            instrument("acme", "spot", symbol, symbol, symbol, "USD", "1", "1")
            for symbol in ("AAA", "BBB")
        )
        self.buffer = ColumnBuffer()
        self.books = BookManager(self.table, lambda _: rule, settings)
        self.connection = Connection([0, 1])
        self.consumer = OrderBooks()
        self.now = START
        self.published: list[str] = []
        self._held = 0

    def delta(
        self,
        first: int = 0,
        last: int = 0,
        bids: Pairs = (),
        asks: Pairs = (),
        *,
        previous: int = 0,
        instrument: int = 0,
        flags: int = 0,
        checksum: int | None = None,
        mark: int = 0,
    ) -> None:
        self.buffer.begin(self.connection, b"{}")
        self.buffer.add_book_update(
            instrument,
            self.now,
            self.now,
            [(str(price), str(size)) for price, size in bids],
            [(str(price), str(size)) for price, size in asks],
            first=first,
            last=last,
            previous=previous,
            flags=flags,
            checksum=checksum,
            check_value=mark,
        )

    def snapshot(
        self, last: int, bids: Pairs, asks: Pairs, *, instrument: int = 0, flags: int = 0
    ) -> None:
        flags |= Flag.SNAPSHOT
        self.delta(last, last, bids, asks, instrument=instrument, flags=flags)

    def quote(self, number: int, bid: tuple[int, int], ask: tuple[int, int]) -> None:
        self.buffer.begin(self.connection, b"{}")
        texts = [str(value) for value in (*bid, *ask)]
        self.buffer.add_quote(0, self.now, self.now, number, texts[0], texts[1], texts[2], texts[3])

    def hole(self, cause: Cause, instruments: Sequence[int] | None = None) -> None:
        self.buffer.hole(cause, self.now, instruments=instruments, source=self.connection)

    def flush(self, seconds: float = 0.0) -> BookOutput:
        """Flush after so many seconds."""
        self.now += int(seconds * SECOND)
        sealed = self.buffer.seal(self.table)
        levels_in = len(sealed.prices)
        output = self.books.apply(sealed, self.now)
        published = int((output.rows["kind"] == Kind.LEVEL).sum())
        assert levels_in + self._held + len(output.added) == (
            published + output.filtered + output.held
        )
        self._held = output.held
        self.consumer.feed(TickBatch(RowClass.LEVEL, output.rows, self.table))
        self.published += words(output.rows)
        return output

    def book(self, instrument: int = 0) -> tuple[dict[int, int], dict[int, int]]:
        """Return the consumer's bids and asks. Raises BookInvalid."""
        book = self.consumer[self.table[instrument].key]
        sides = (book.bids(), book.asks())
        return tuple(  # type: ignore[return-value]  # two sides
            dict(zip(side.prices.tolist(), side.sizes.tolist(), strict=True)) for side in sides
        )


def live(rule: BookRule, settings: BookSettings | None = None, last: int = 100) -> BookHarness:
    """Return a harness whose first book is live at update 100."""
    harness = BookHarness(rule, settings)
    harness.snapshot(last, BIDS, ASKS)
    harness.flush()
    assert harness.published == IMAGE
    harness.published.clear()
    return harness


def words(rows: Rows) -> list[str]:
    """Return rows as short words: "b10=5." is a bid of 5 at 10 that ends its event, "*" marks
    snapshot rows, "RESET", "GAP SEQUENCE 4-6"."""
    found = []
    for row in rows:
        if row["kind"] == Kind.RESET:
            found.append("RESET")
        elif row["kind"] == Kind.GAP:
            found.append(f"GAP {Cause(int(row['side'])).name} {row['price']}-{row['size']}")
        else:
            side = "b" if row["side"] == Side.BID else "a"
            star = "*" if row["flags"] & Flag.SNAPSHOT else ""
            dot = "." if row["flags"] & Flag.LAST else ""
            found.append(f"{side}{row['price']}={row['size']}{star}{dot}")
    return found
