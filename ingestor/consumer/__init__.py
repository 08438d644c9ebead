"""Read Kafka topics back into batches of rows and order books."""

from ingestor.consumer.audit import Audit, audit, remainder, void_of
from ingestor.consumer.blocking import LoopThread, SyncConsumer, SyncLiveBooks, iterate
from ingestor.consumer.book_snapshot import BookSnapshot, book_snapshot
from ingestor.consumer.consumer import Consumer, ForeignRecord
from ingestor.consumer.live_books import LiveBooks
from ingestor.consumer.lost_trades import in_place
from ingestor.consumer.metadata import read_metadata
from ingestor.consumer.orderbook import (
    BookInvalid,
    Levels,
    OrderBook,
    OrderBooks,
)
from ingestor.consumer.positions import EARLIEST, LATEST, Where
from ingestor.consumer.progress import MissingRange, Progress
from ingestor.consumer.two_clusters import LineArbiter, TwoClusters

__all__ = [
    "EARLIEST",
    "LATEST",
    "Audit",
    "BookInvalid",
    "BookSnapshot",
    "Consumer",
    "ForeignRecord",
    "Levels",
    "LineArbiter",
    "LiveBooks",
    "LoopThread",
    "MissingRange",
    "OrderBook",
    "OrderBooks",
    "Progress",
    "SyncConsumer",
    "SyncLiveBooks",
    "TwoClusters",
    "Where",
    "audit",
    "book_snapshot",
    "in_place",
    "iterate",
    "read_metadata",
    "remainder",
    "void_of",
]
