"""The rows: one numpy dtype per class, little-endian, unpadded.

| class | bytes | one row is |
|---|---|---|
| TRADE | 64 | one print |
| QUOTE | 64 | best bid and best ask |
| LEVEL | 48 | one price level of a book; the row flagged LAST ends the venue's event |
| FUNDING | 64 | one funding rate |
| MARK_PRICE | 64 | mark, index and settlement price |
| OPEN_INTEREST | 48 | open interest in one unit |
| LIQUIDATION | 64 | one liquidation |
| CANDLE | 128 | one state of a candle |
| INSTRUMENT_STATUS | 56 | what may be done with an instrument |
| ORDER | 72 | one change of one order in a book |
| BOOK_TOP, BOOK_TOP_LAST | 48 | one of the best levels of a book at a fixed time |

Every class begins with the same 32-byte header. Prices and sizes are int64 in units of
10^-exponent, the exponents belonging to the instrument. Times are ns since the Unix epoch (UTC).
A row of kind GAP or RESET stands in the stream of its class, in order, with the same dtype; its
fields have other names (`RowClass.control`). docs/semantics.md is the one place that says what
every field means.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.void]  # a structured array of one class


class Kind(IntEnum):
    """Name the kind of a row: the id of its class, or GAP or RESET."""

    TRADE = 1
    QUOTE = 2
    LEVEL = 3
    GAP = 4  # a declared hole: rows of this instrument and class may be missing here
    RESET = 5  # the book is empty now; a snapshot follows (LEVEL class only)
    # 6 and 7 are kept for others of the last two.
    FUNDING = 8
    MARK_PRICE = 9
    OPEN_INTEREST = 10
    LIQUIDATION = 11
    CANDLE = 12
    INSTRUMENT_STATUS = 13
    ORDER = 14
    BOOK_TOP = 15
    BOOK_TOP_LAST = 16


class Side(IntEnum):
    """Trades: the aggressor. Levels: the side of the book."""

    NONE = 0
    BID = 1  # the buyer took liquidity / a bid level
    ASK = 2  # the seller took liquidity / an ask level


class Flag(IntFlag):
    """Bits of the `flags` field."""

    LAST = 1  # the last row of one venue event
    SNAPSHOT = 2  # part of a full image (levels), or resent on subscribe (trades)
    NO_VENUE_TIME = 4  # the venue gives no event time; ts_event equals ts_recv
    PARTIAL = 8  # the snapshot is cut: the book is deeper than what is shown
    CHECKSUM = 16  # book updates before the books only: `check_value` is the checksum
    # What a trade was, where the venue says it.
    BLOCK = 32  # negotiated away from the book
    RPI = 64  # all or a part of it against retail price improvement orders
    LIQUIDATION = 128  # one side was liquidated
    ADL = 256  # one side was reduced automatically
    INSURANCE = 512  # one side was the venue's insurance fund
    AUCTION = 1_024  # the price of an auction
    BACKFILL = 2_048  # fetched later; `sequence` says where it belongs
    SAMPLE = 8_192  # liquidations: the venue leaves some out
    FETCHED = 1 << 14  # book updates before the books only: a REST snapshot (SnapshotSource.EITHER)


class Cause(IntEnum):
    """Name the reason of a GAP; the mark has it in its `side` field."""

    SEQUENCE = 1  # the venue's sequence numbers skip
    CHECKSUM = 2  # the venue's checksum, or an independent stream, contradicts the book
    CROSSED = 3  # best bid at or above best ask, or a negative size
    REJECTED = 4  # a frame that may have concerned this instrument went to quarantine
    DISCONNECT = 5  # the connection ended
    SHED = 6  # we dropped rows because the byte budget was exhausted
    STALE = 7  # the stream was silent for longer than it ever is
    DEAD_LETTER = 8  # Kafka refused the record
    RESTART = 9  # a session before this one ended; what came in between is not known
    UNFILLED = 10  # the venue doesn't give the trades that a GAP before declares missing
    TAKEOVER = 11  # another worker had the stream and was lost
    LATE = 12  # candles: trades came too late to be counted


HEADER: Final = [
    ("ts_event", "<i8"),  # ns, the venue's clock
    ("ts_recv", "<i8"),  # ns, our clock, taken once per socket read
    ("sequence", "<u8"),  # the venue's trade or update number; 0 = none
    ("instrument", "<u4"),  # index into the batch's instrument table
    ("flags", "<u2"),  # Flag
    ("side", "u1"),  # Side; Cause on a GAP mark
    ("kind", "u1"),  # Kind
]

TRADE: Final = np.dtype(
    [
        *HEADER,
        ("price", "<i8"),  # 10^-price_exponent of the quote currency
        ("size", "<i8"),  # 10^-size_exponent of the instrument's size unit
        ("trade_id_high", "<u8"),  # the id as an unsigned 128-bit integer: a UUID, or
        ("trade_id_low", "<u8"),  # high = 0 and the venue's decimal id below; 0, 0 = none
    ]
)

QUOTE: Final = np.dtype(
    [
        *HEADER,
        ("bid_price", "<i8"),
        ("bid_size", "<i8"),  # 0 = this side of the book is empty
        ("ask_price", "<i8"),
        ("ask_size", "<i8"),
    ]
)

LEVEL: Final = np.dtype(
    [
        *HEADER,
        ("price", "<i8"),
        ("size", "<i8"),  # absolute; 0 removes the level
    ]
)

# A number, a count or a time that the venue doesn't say, where `RowClass.optional` names the field.
ABSENT: Final = -(2**63)

FUNDING: Final = np.dtype(
    [
        *HEADER,
        ("rate", "<i8"),  # 10^-exponent; of a position's value, for one interval
        ("due_ns", "<i8"),  # when it is or was exchanged
        ("interval_ns", "<i8"),
        ("exponent", "<u4"),
        ("state", "<u4"),  # FundingState
    ]
)

MARK_PRICE: Final = np.dtype(
    [
        *HEADER,
        ("mark_price", "<i8"),  # 10^-exponent
        ("index_price", "<i8"),
        ("settle_price", "<i8"),  # estimated
        ("exponent", "<u8"),
    ]
)

OPEN_INTEREST: Final = np.dtype(
    [
        *HEADER,
        ("value", "<i8"),  # 10^-exponent
        ("exponent", "<u4"),
        ("unit", "<u4"),  # InterestUnit
    ]
)

LIQUIDATION: Final = np.dtype(
    [
        *HEADER,  # side: of the order
        ("price", "<i8"),  # 10^-exponent; what it is says `price_kind`
        ("average_price", "<i8"),  # at which it was filled
        ("size", "<i8"),  # 10^-size_exponent of the instrument's size unit
        ("exponent", "<u4"),
        ("position", "<u2"),  # Position
        ("price_kind", "<u2"),  # PriceKind
    ]
)

CANDLE: Final = np.dtype(
    [
        *HEADER,
        ("start_ns", "<i8"),
        ("end_ns", "<i8"),  # exclusive
        ("interval_ns", "<i8"),  # of a month: 30 days
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<i8"),  # 10^-size_exponent of the instrument's size unit
        ("buy_volume", "<i8"),  # of buyers that took liquidity
        ("turnover", "<i8"),  # 10^-exponent; price times size, in what the instrument is settled in
        ("trades", "<i8"),
        ("exponent", "<u4"),
        ("state", "<u2"),  # CandleState
        ("origin", "<u2"),  # Origin
    ]
)

INSTRUMENT_STATUS: Final = np.dtype(
    [
        *HEADER,
        ("effective_ns", "<i8"),  # from when on
        ("until_ns", "<i8"),
        ("state", "<u4"),  # InstrumentState
        ("scope", "<u4"),  # StatusScope
    ]
)

ORDER: Final = np.dtype(
    [
        *HEADER,  # side: of the book
        ("order_id_high", "<u8"),  # as a trade's id
        ("order_id_low", "<u8"),
        ("price", "<i8"),
        ("size", "<i8"),  # what is left of it
        ("action", "<u4"),  # OrderAction
        ("reason", "<u4"),  # OrderReason
    ]
)

# One venue book event between the decoder and the books: a row here, its levels (bids first, then
# asks) in two parallel int64 arrays. What leaves the books are LEVEL rows.
UPDATE: Final = np.dtype(
    [
        ("ts_event", "<i8"),
        ("ts_recv", "<i8"),
        ("first", "<u8"),  # first and last update number that the event covers; 0 = none
        ("last", "<u8"),
        ("previous", "<u8"),  # the `last` of the event before, where the venue says it; else 0
        ("instrument", "<u4"),
        ("bids", "<u4"),  # number of bid levels
        ("asks", "<u4"),
        ("check_value", "<u4"),  # checksum (Flag.CHECKSUM), or what a REST image names; 0 = none
        ("frame", "<u4"),  # index of the frame in the sealed buffer
        ("flags", "<u2"),
        ("spare", "<u2"),
    ]
)

assert (TRADE.itemsize, QUOTE.itemsize, LEVEL.itemsize, UPDATE.itemsize) == (64, 64, 48, 64)
