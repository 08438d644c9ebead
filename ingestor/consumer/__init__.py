"""Read Kafka topics back into batches of rows and order books."""

from ingestor.consumer.audit import Audit, audit, remainder, void_of
from ingestor.consumer.book_snapshot import BookImage, book_image
from ingestor.consumer.consumer import EARLIEST, Consumer, Hole, Progress
from ingestor.consumer.orderbook import (
    BookInvalid,
    Levels,
    OrderBook,
    OrderBooks,
)

__all__ = [
    "EARLIEST",
    "Audit",
    "BookImage",
    "BookInvalid",
    "Consumer",
    "Hole",
    "Levels",
    "OrderBook",
    "OrderBooks",
    "Progress",
    "audit",
    "book_image",
    "remainder",
    "void_of",
]
