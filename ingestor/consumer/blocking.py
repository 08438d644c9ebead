"""The consumer for code without `async`, also where a loop runs already, as in Jupyter.

The asynchronous form runs on a loop in a thread of its own, so a group's heartbeats go on while
the caller works.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Self, TypeVar

from ingestor.consumer.consumer import Consumer
from ingestor.consumer.live_books import LiveBooks
from ingestor.consumer.orderbook import OrderBook
from ingestor.model.batch import TickBatch

_Result = TypeVar("_Result")

_END_TIMEOUT_S: Final = 10.0


class LoopThread:
    """An event loop in a thread of its own; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="ingestor-loop", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_TIMEOUT_S)
        self._loop.close()

    def run(self, work: Awaitable[_Result]) -> _Result:
        """Return what a coroutine comes to. It is cancelled where the caller is interrupted."""
        future = asyncio.run_coroutine_threadsafe(_awaited(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def enter(self, context: AbstractAsyncContextManager[object]) -> None:
        """Start, and enter a context on the loop."""
        self.__enter__()
        try:
            self.run(context.__aenter__())
        except BaseException:
            self.__exit__()
            raise

    def leave(self, context: AbstractAsyncContextManager[object]) -> None:
        """Leave the context, and end."""
        try:
            self.run(context.__aexit__(None, None, None))
        finally:
            self.__exit__()

    def call(self, make: Callable[[], _Result]) -> _Result:
        """Return what a function returns that must run where a loop runs."""

        async def called() -> _Result:
            return make()

        return self.run(called())


def iterate(make: Callable[[], AsyncIterator[_Result]]) -> Iterator[_Result]:
    """Yield what an asynchronous iterator gives, from code without `async`.

    Args:
        make: makes the iterator; called on the loop that runs it.
    """
    with LoopThread() as thread:
        found = thread.call(make)
        try:
            while True:
                try:
                    yield thread.run(_next(found))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(found, "aclose", None)
            if close is not None:
                thread.run(close())


async def _awaited(work: Awaitable[_Result]) -> _Result:
    return await work


async def _next(found: AsyncIterator[_Result]) -> _Result:
    return await anext(found)


class SyncConsumer:
    """A Consumer for code without `async`: the same options, the same batches.

    with SyncConsumer("localhost:9092", "md.trades.v1", start="earliest") as consumer:
        for batch in consumer:
            ...
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Create the sync consumer.

        Args:
            arguments: those of `Consumer`.
            options: those of `Consumer`.
        """
        self.consumer = Consumer(*arguments, **options)
        self._thread = LoopThread()

    def __enter__(self) -> Self:
        """Connect. Raises what `async with` of a Consumer raises."""
        self._thread.enter(self.consumer)
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._thread.leave(self.consumer)

    def __iter__(self) -> Iterator[TickBatch]:
        while (batch := self._thread.run(self.consumer.next_batch())) is not None:
            yield batch

    def commit(self) -> bool:
        """Commit what was handed out; see `Consumer.commit`."""
        return self._thread.run(self.consumer.commit())

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """See `Consumer.positions`."""
        return self.consumer.positions


class SyncLiveBooks(Mapping[str, OrderBook]):
    """LiveBooks for code without `async`: the same options, the same books.

    The books change while this is iterated, and at no other time.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Create the sync live books.

        Args:
            arguments: those of `LiveBooks`.
            options: those of `LiveBooks`.
        """
        self.books = LiveBooks(*arguments, **options)
        self._thread = LoopThread()

    def __enter__(self) -> Self:
        """Begin with the images. Raises what `async with` of LiveBooks raises."""
        self._thread.enter(self.books)
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._thread.leave(self.books)

    def changes(self) -> Iterator[OrderBook]:
        """Read on, and yield each book that changed and is valid."""
        while True:
            yield self._thread.run(self.books.next_book())

    def __getitem__(self, key: str) -> OrderBook:
        return self.books[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.books)

    def __len__(self) -> int:
        return len(self.books)
