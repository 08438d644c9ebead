"""The embedded broker: librdkafka's mock cluster, for first runs, benchmarks and fault tests.

It speaks Kafka over real TCP on loopback, holds at most 5 MiB per partition in memory and forgets
everything when it ends. It has no admin calls (topics are created here, or by first use with four
partitions), no look-up of offsets by time and no working transactions, and it stores what an
idempotent producer sends twice: whoever needs these needs a real Kafka.

The cluster runs in a process of its own (`python -m ingestor.testbed.broker`, with the number of
brokers): its threads and its memory are not counted as ours, and it ends when its standard input
closes, hence with its parent.
Requests and replies are one JSON object a line.

Source: librdkafka `src/rdkafka_mock.h`, the documented functions that the confluent-kafka wheel
exports from its bundled library.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import orjson

from ingestor.model.errors import ConfigError, SinkUnavailable

PRODUCE: Final = 0  # Kafka's API key (protocol guide, "Api Keys")
DISCONNECT: Final = -195  # RD_KAFKA_RESP_ERR__TRANSPORT: the broker closes the connection instead
REPLY_TIMEOUT_S: Final = 20.0
NAME: Final = "the embedded broker"


class DevBroker:
    """A mock cluster in a child process; a context manager.

    `topics` maps names to partition counts, created at the start; `rtt_ms` delays every reply;
    `brokers` is their number, numbered from 1.
    All calls block for the time of one pipe round trip (below a millisecond), `start` for about
    100 ms. They raise SinkUnavailable when the process is gone or refuses.
    """

    def __init__(
        self, topics: Mapping[str, int] | None = None, *, rtt_ms: int = 0, brokers: int = 1
    ) -> None:
        self._topics = dict(topics or {})
        self._brokers = brokers
        self._rtt_ms = rtt_ms
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start the process and return its `host:port`.

        Raises: ConfigError when confluent-kafka isn't installed.
        """
        assert self._process is None, "already started"
        library_path()
        self._process = subprocess.Popen(  # noqa: S603  # our own module, and a number
            [sys.executable, "-m", "ingestor.testbed.broker", f"{self._brokers:d}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C must reach the program alone, which then still has a broker to drain into.
            start_new_session=True,
        )
        try:
            self.bootstrap_servers = str(self._reply()["bootstrap_servers"])
            for topic, partitions in self._topics.items():
                self.create_topic(topic, partitions)
            if self._rtt_ms:
                self.set_rtt(self._rtt_ms)
        except SinkUnavailable:
            self.stop()
            raise
        return self.bootstrap_servers

    def stop(self) -> None:
        """End the process and forget its records; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def create_topic(self, topic: str, partitions: int) -> None:
        """Create a topic. It must not exist, nor have been asked for by a client."""
        assert partitions > 0, "the mock cluster accepts a topic that nobody can write to"
        self._ask("create_topic", topic=topic, partitions=partitions)

    def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """Let another broker lead a partition; the one before answers that it does not.

        Args:
            topic: Name of the topic.
            partition: The partition.
            broker: Id of the broker.
        """
        self._ask("set_leader", topic=topic, partition=partition, broker=broker)

    def set_down(self) -> None:
        """Drop all connections and refuse new ones; records are kept."""
        self._ask("set_down")

    def set_up(self) -> None:
        """Accept connections again."""
        self._ask("set_up")

    def set_rtt(self, rtt_ms: int) -> None:
        """Delay every reply by `rtt_ms`; 0 ends it."""
        self._ask("set_rtt", rtt_ms=rtt_ms)

    def push_errors(self, codes: Sequence[int], api_key: int = PRODUCE) -> None:
        """Answer the next requests of a kind with these Kafka error codes, one each.

        0 lets a request pass; `DISCONNECT` closes the connection instead of answering.
        """
        self._ask("push_errors", codes=list(codes), api_key=api_key)

    def clear_errors(self, api_key: int = PRODUCE) -> None:
        """Forget the error codes that were not used yet."""
        self._ask("clear_errors", api_key=api_key)

    def _ask(self, command: str, **arguments: Any) -> None:
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(orjson.dumps({"do": command, **arguments}) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise SinkUnavailable(NAME, "its process ended") from None
        reply = self._reply()
        if "error" in reply:
            raise SinkUnavailable(NAME, f"{command}: {reply['error']}")

    def _reply(self) -> dict[str, Any]:
        stdout = self._running().stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], REPLY_TIMEOUT_S)
        if not ready:
            raise SinkUnavailable(NAME, f"silent for {REPLY_TIMEOUT_S:.0f} s")
        line = stdout.readline()
        if not line:
            raise SinkUnavailable(NAME, "its process ended")
        reply: dict[str, Any] = orjson.loads(line)
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise SinkUnavailable(NAME, "not started")
        return self._process


def library_path() -> str:
    """Return the path of librdkafka: bundled with confluent-kafka, else the system's.

    Raises: ConfigError when there is none; its text names the extra to install.
    """
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the embedded broker needs the package confluent-kafka",
            hint="install market-data-ingestor[demo], or name a real Kafka",
        )
    bundled = next(_bundled_libraries(Path(spec.origin).parent), None)
    found = str(bundled) if bundled is not None else ctypes.util.find_library("rdkafka")
    if found is None:
        raise ConfigError(
            "the embedded broker finds no librdkafka beside confluent-kafka",
            hint="install confluent-kafka from its wheel, or name a real Kafka",
        )
    return found


def _bundled_libraries(package: Path) -> Iterator[Path]:
    """Repaired wheels put it beside the package on Linux, inside it on macOS."""
    yield from sorted((package.parent / "confluent_kafka.libs").glob("librdkafka*.so*"))
    yield from sorted((package / ".dylibs").glob("librdkafka*.dylib"))


class _Refused(Exception):
    """librdkafka answered with an error; the text is its own."""


class _MockCluster:
    """The mock cluster in this process; lives until the process ends."""

    def __init__(self, brokers: int) -> None:
        self._brokers = range(1, brokers + 1)
        self._library = ctypes.CDLL(library_path())
        self._declare()
        configuration = self._library.rd_kafka_conf_new()
        reason = ctypes.create_string_buffer(512)
        # Silent: a client that goes away is no news here.
        self._library.rd_kafka_conf_set(configuration, b"log_level", b"0", reason, len(reason))
        producer = 0  # RD_KAFKA_PRODUCER: the cluster needs a client for its bookkeeping
        client = self._library.rd_kafka_new(producer, configuration, reason, len(reason))
        assert client, reason.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(client, brokers)
        assert self._cluster, "no mock cluster"

    @property
    def bootstrap_servers(self) -> str:
        address: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return address.decode()

    def create_topic(self, *, topic: str, partitions: int) -> None:
        self._check(
            self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
        )

    def set_leader(self, *, topic: str, partition: int, broker: int) -> None:
        """Let another broker lead a partition.

        Args:
            topic: Name of the topic.
            partition: The partition.
            broker: Id of the broker.
        """
        set_leader = self._library.rd_kafka_mock_partition_set_leader
        self._check(set_leader(self._cluster, topic.encode(), partition, broker))

    def set_down(self) -> None:
        for broker in self._brokers:
            self._check(self._library.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def set_up(self) -> None:
        for broker in self._brokers:
            self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def set_rtt(self, *, rtt_ms: int) -> None:
        for broker in self._brokers:
            self._check(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, rtt_ms))

    def push_errors(self, *, codes: list[int], api_key: int) -> None:
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, api_key, len(codes), array
        )

    def clear_errors(self, *, api_key: int) -> None:
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, api_key)

    def _check(self, code: int) -> None:
        if code != 0:
            text: bytes = self._library.rd_kafka_err2str(code)
            raise _Refused(text.decode())

    def _declare(self) -> None:
        """Tell ctypes the signatures: it would cut pointers to 32 bits by default."""
        pointer, text, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        size, key, broker = ctypes.c_size_t, ctypes.c_int16, ctypes.c_int32
        signatures: tuple[tuple[str, Any, list[Any]], ...] = (
            ("conf_new", pointer, []),
            ("conf_set", integer, [pointer, text, text, text, size]),
            ("new", pointer, [integer, pointer, text, size]),
            ("err2str", text, [integer]),
            ("mock_cluster_new", pointer, [pointer, integer]),
            ("mock_cluster_bootstraps", text, [pointer]),
            ("mock_topic_create", integer, [pointer, text, integer, integer]),
            ("mock_partition_set_leader", integer, [pointer, text, broker, broker]),
            ("mock_broker_set_down", integer, [pointer, broker]),
            ("mock_broker_set_up", integer, [pointer, broker]),
            ("mock_broker_set_rtt", integer, [pointer, broker, integer]),
            ("mock_push_request_errors_array", None, [pointer, key, size, pointer]),
            ("mock_clear_request_errors", None, [pointer, key]),
        )
        for name, result, arguments in signatures:
            function = self._library[f"rd_kafka_{name}"]
            function.restype, function.argtypes = result, arguments
            setattr(self._library, f"rd_kafka_{name}", function)


def serve() -> None:
    """The child process: print the address, then obey until standard input closes."""
    cluster = _MockCluster(int(sys.argv[1]))
    commands: dict[str, Callable[..., None]] = {
        "create_topic": cluster.create_topic,
        "set_leader": cluster.set_leader,
        "set_down": cluster.set_down,
        "set_up": cluster.set_up,
        "set_rtt": cluster.set_rtt,
        "push_errors": cluster.push_errors,
        "clear_errors": cluster.clear_errors,
    }
    _print({"bootstrap_servers": cluster.bootstrap_servers})
    for line in sys.stdin.buffer:
        request = orjson.loads(line)
        try:
            commands[request.pop("do")](**request)
        except _Refused as refusal:
            _print({"error": str(refusal)})
        else:
            _print({})


def _print(message: dict[str, str]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
