"""Read Kafka topics back into batches of rows and order books."""

from ingestor.consumer.audit import Audit, audit, remainder, void_of
from ingestor.consumer.book_snapshot import BookSnapshot, book_snapshot
from ingestor.consumer.consumer import EARLIEST, Consumer, MissingRange, Progress
from ingestor.consumer.lost_trades import in_place
from ingestor.consumer.orderbook import (
    BookInvalid,
    Levels,
    OrderBook,
    OrderBooks,
)

__all__ = [
    "EARLIEST",
    "Audit",
    "BookInvalid",
    "BookSnapshot",
    "Consumer",
    "Levels",
    "MissingRange",
    "OrderBook",
    "OrderBooks",
    "Progress",
    "audit",
    "book_snapshot",
    "in_place",
    "remainder",
    "void_of",
]
