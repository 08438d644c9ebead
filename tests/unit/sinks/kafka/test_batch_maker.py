"""Batches of several partitions are made together, and fail by themselves."""

from __future__ import annotations

from collections import Counter

from aiokafka import TopicPartition

from ingestor.codec import encoder
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.batch_maker import BatchMaker
from ingestor.sinks.kafka.clock_steps import ClockSteps
from ingestor.sinks.kafka.in_flight import InFlightBatch, InFlightWindow
from ingestor.sinks.kafka.queue import PartitionQueue
from ingestor.sinks.kafka.refusals import Refusals
from tests.fakes.broker import SequencedBroker
from tests.fakes.rows import table_of, trades


def window_of(partition: int, rows: int, instrument: int = 0) -> InFlightWindow:
    window = InFlightWindow(
        PartitionQueue(RowClass.TRADE, partition), TopicPartition("md.trades.v1", partition)
    )
    some = trades(rows, instruments=1)
    some["instrument"] = instrument
    window.in_flight_batches.append(InFlightBatch(some, 0, 0))
    return window


def maker_of(max_batch_bytes: int = 512 << 10) -> BatchMaker:
    settings = KafkaSettings("", max_batch_bytes=max_batch_bytes)
    refusals = Refusals(ClockSteps(), lambda: 0, lambda *_given: None)
    encoding = encoder("json", table_of(1), bytes(16))
    return BatchMaker(settings, encoding, {RowClass.TRADE: []}, refusals)


def make(maker: BatchMaker, *windows: InFlightWindow) -> dict[InFlightWindow, Exception]:
    unmade: dict[InFlightWindow, Exception] = {}
    started = [(window, window.in_flight_batches[0]) for window in windows]
    produce = SequencedBroker().produce()
    maker.make(produce, RowClass.TRADE, started, unmade)  # type: ignore[arg-type]
    return unmade


def test_rows_that_can_not_be_encoded_cost_their_own_partition(
    expected_bugs: Counter[str],
) -> None:
    """There is no instrument 99."""
    good, bad, other = window_of(0, 3), window_of(1, 2, instrument=99), window_of(2, 4)
    assert list(make(maker_of(), good, bad, other)) == [bad]
    assert good.in_flight_batches[0].payload is not None
    assert other.in_flight_batches[0].payload is not None
    assert bad.in_flight_batches[0].payload is None
    assert bad.needs_renewal
    expected_bugs["record"] = 1


def test_what_one_batch_has_no_room_for_is_the_next_one() -> None:
    maker, window = maker_of(max_batch_bytes=2_000), window_of(0, 50)
    assert not make(maker, window)
    first, rest = window.in_flight_batches
    assert 0 < len(first.rows) < 50
    assert len(first.rows) + len(rest.rows) == 50
    assert (rest.payload, rest.first_sequence) == (None, len(first.rows))
    assert window.numbering.sequence == len(first.rows)
    assert maker.rows_max(window.partition_queue) < 50
