"""Read Kafka topics back into batches of rows and order books."""

from ingestor.consumer.consumer import (
    EARLIEST,
    Audit,
    BookImage,
    Consumer,
    Hole,
    Progress,
    audit,
    book_image,
    remainder,
    void_of,
)
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
