"""A real Apache Kafka broker for tests, without containers.

`KafkaBroker` copies Kafka's own jars through Maven into a cache (once for all callers), formats a
temporary directory and runs one KRaft node on loopback. It can be stopped, killed, paused and
started again on the same data and port. Every call blocks: from a coroutine, use
`await asyncio.to_thread(broker.start)`.

Source: Apache Kafka 4.3 `config/server.properties`, `kafka.tools.StorageTool`, `kafka.Kafka`.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from cryptography.hazmat.primitives import serialization

HOST = "127.0.0.1"
CLUSTER_ID = (
    "aW5nZXN0b3ItdGVzdHMtMA"  # 16 bytes in base64; a random one may begin with "-", an option
)
POM = Path(__file__).with_name("pom.xml")
# Outside Linux's range for outgoing connections: else a client may take the port of a broker that
# is down, and the broker can't come back on it.
PORTS = range(20_000, 32_000)
JAVA = (
    "java",
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MaxMetaspaceSize=160m",
    "-Dlog4j2.level=INFO",
)
SASL_USER, SASL_PASSWORD = "ingestor", "ingestor-secret"


class BrokerError(Exception):
    """The broker, or its jars, can't be had; the text says why."""


def missing_tools() -> str | None:
    """What this machine lacks to run a broker, or None. Cached jars need no Maven."""
    needed = ["java"] if _libraries().exists() else ["java", "mvn"]
    absent = [tool for tool in needed if shutil.which(tool) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


def free_ports(count: int) -> list[int]:
    """Return distinct loopback ports that nothing listens on now and no client is given."""
    free: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                free.append(port)
        if len(free) == count:
            break
    return free


class KafkaEndpoint:
    """A Kafka cluster that somebody runs: its address, and the one admin call that tests need."""

    def __init__(self, bootstrap_servers: str, description: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.description = description

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic and wait for it; returns `name`. Raises KafkaException."""
        client = _admin(self.bootstrap_servers)
        topic = NewTopic(name, partitions, 1, config=dict(config or {}))
        client.create_topics([topic], operation_timeout=60)[name].result(timeout=30)
        return name


class KafkaBroker(KafkaEndpoint):
    """One KRaft node on loopback, with its data and logs in a temporary directory.

    `overrides` are lines of server.properties (`{"message.max.bytes": "2000"}`). `sasl` adds a
    SASL_PLAINTEXT listener (PLAIN and SCRAM-SHA-512, `SASL_USER`, `SASL_PASSWORD`) at
    `sasl_bootstrap_servers`; `tls` adds one with a certificate of `ca_file` at
    `tls_bootstrap_servers`, which trusts clients with a certificate of the same authority, such as
    `client_cert` and `client_key`; both together add SASL_SSL at `sasl_tls_bootstrap_servers`.
    `advertised` is the address of a proxy that clients are sent to instead of `address`; it must
    listen before the broker starts. `through` adds a listener at `proxied_address` for clients
    of a proxy alone: they begin at its address, and are sent there. `node` and `voters` make
    it one of several (tests/kafka/three_brokers.py).
    """

    node = 1
    voters = ""  # "1@host:port,...": the controllers of all nodes

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        *,
        sasl: bool = False,
        tls: bool = False,
        advertised: str = "",
        through: str = "",
    ) -> None:
        self._overrides = dict(overrides or {})
        self._advertised = {"PLAINTEXT": advertised, "PROXIED": through}
        self.directory = Path(tempfile.mkdtemp(prefix="ingestor-kafka-"))
        self.log_file = self.directory / "kafka.log"
        self.ca_file = self.directory / "ca.pem"
        self.client_cert = self.directory / "client.pem"
        self.client_key = self.directory / "client.key"
        names = ["PLAINTEXT", "CONTROLLER", *["SASL_PLAINTEXT"] * sasl, *["SSL"] * tls]
        names += ["SASL_SSL"] * (sasl and tls) + ["PROXIED"] * bool(through)
        self._addresses = dict(
            zip(names, (f"{HOST}:{port}" for port in free_ports(len(names))), strict=True)
        )
        self.sasl_bootstrap_servers = self._addresses.get("SASL_PLAINTEXT", "")
        self.tls_bootstrap_servers = self._addresses.get("SSL", "")
        self.sasl_tls_bootstrap_servers = self._addresses.get("SASL_SSL", "")
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self.address = self._addresses["PLAINTEXT"]
        self.controller = self._addresses["CONTROLLER"]
        self.proxied_address = self._addresses.get("PROXIED", "")
        super().__init__(
            advertised or self.address, f"Apache Kafka {kafka_version()} from Maven, one node"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the process lives; true also while it is paused."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 60.0) -> None:
        """Start, or start again on the same data and port; returns when metadata is served.

        Raises: BrokerError with the end of the log.
        """
        assert not self.running, "already started"
        libraries = libraries_cached()
        if not (self.directory / "data").exists():
            self._format(libraries)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*JAVA, "-cp", f"{libraries}/*", "kafka.Kafka", self._properties],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watchdog = _clean_up_after_us(self._process.pid, self.directory)
        self._wait_until_ready(time.monotonic() + timeout_s)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Shut down in order (SIGTERM), by force after `timeout_s`."""
        process = self._signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL: what a crash or a power cut of the process looks like."""
        self._signal(signal.SIGKILL).wait()
        self._forget()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def restore(self) -> None:
        """Let it serve again, whatever was done to it: resume it, or start it."""
        if self.running:
            self.resume()
            self._wait_until_ready(time.monotonic() + 60.0)
        else:
            self.start()

    def close(self) -> None:
        """Kill what runs and remove the directory; may be called twice."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _properties(self) -> str:
        return str(self.directory / "server.properties")

    def _format(self, libraries: Path) -> None:
        """Write server.properties and the empty metadata log."""
        if "SSL" in self._addresses:
            self._write_certificates()
        lines = (f"{key}={value}\n" for key, value in self._settings().items())
        Path(self._properties).write_text("".join(lines), encoding="utf-8")
        tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID]
        tool += [] if self.voters else ["--standalone"]
        if self.sasl_bootstrap_servers:
            user = f"SCRAM-SHA-512=[name={SASL_USER},password={SASL_PASSWORD}]"
            tool += ["--add-scram", user]
        done = subprocess.run(
            [*JAVA, "-cp", f"{libraries}/*", *tool, "-c", self._properties],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerError(
                f"StorageTool format failed: {done.stdout[-800:]}{done.stderr[-800:]}"
            )

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        client = authority.issue_cert("ingestor")
        client.cert_chain_pems[0].write_to_path(str(self.client_cert))
        client.private_key_pem.write_to_path(str(self.client_key))
        issued = authority.issue_cert(HOST, "localhost")
        # Java's PEM key store reads PKCS#8 only, trustme writes the traditional form.
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        pkcs8 = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        (self.directory / "server.pem").write_bytes(pkcs8 + chain)

    def _settings(self) -> dict[str, str]:
        listeners = {name: f"{name}://{address}" for name, address in self._addresses.items()}
        advertised = {name: url for name, url in listeners.items() if name != "CONTROLLER"}
        for name, address in self._advertised.items():
            if address:
                advertised[name] = f"{name}://{address}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.node),
            "controller.quorum.bootstrap.servers": self.controller,
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(advertised.values()),
            "log.dirs": str(self.directory / "data"),
            # A killed broker may register again only when its old session ended (9 s by default).
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "num.partitions": "4",
            "num.network.threads": "1",
            "num.io.threads": "2",
            "log.cleaner.dedupe.buffer.size": str(4 << 20),
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }
        if self.sasl_bootstrap_servers:
            settings["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-512"
            logins = "org.apache.kafka.common.security"
            login = f'{logins}.plain.PlainLoginModule required user_{SASL_USER}="{SASL_PASSWORD}";'
            scram = f"{logins}.scram.ScramLoginModule required;"
            for name in ("sasl_plaintext", "sasl_ssl"):
                settings[f"listener.name.{name}.plain.sasl.jaas.config"] = login
                settings[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = scram
        if self.tls_bootstrap_servers:
            settings |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.directory / "server.pem"),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.ca_file),
            }
        if self.voters:
            settings["controller.quorum.voters"] = self.voters
            del settings["controller.quorum.bootstrap.servers"]
        plain = ("CONTROLLER", "PROXIED")
        names = ",".join(f"{name}:{'PLAINTEXT' if name in plain else name}" for name in listeners)
        return settings | {"listener.security.protocol.map": names} | self._overrides

    def _wait_until_ready(self, deadline_s: float) -> None:
        client = _admin(self.bootstrap_servers)
        while time.monotonic() < deadline_s:
            if not self.running:
                break
            try:
                # A broker that is still fenced answers with an empty list of brokers.
                if client.list_topics(timeout=0.25).brokers:
                    return
            except KafkaException:
                time.sleep(0.05)
        log = self.log_file.read_text(encoding="utf-8", errors="replace")[-2_000:]
        self.kill()
        raise BrokerError(f"Kafka at {self.bootstrap_servers} did not come up:\n{log}")

    def _signal(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        self._process.send_signal(number)
        return self._process

    def _forget(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
        self._process = self._watchdog = None


def kafka_version() -> str:
    """The version in pom.xml."""
    version = ET.parse(POM).findtext(".//{*}kafka.version")
    assert version is not None
    return version


def libraries_cached() -> Path:
    """The folder of Kafka's jars; the first caller on a machine fetches them, others wait.

    Raises: BrokerError when Maven is absent or fails.
    """
    target = _libraries()
    if target.exists():
        return target
    absent = missing_tools()
    if absent:
        raise BrokerError(absent)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock")):
        if not target.exists():
            partial = target.with_name(f"{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
            options = ["-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
            done = subprocess.run(command + options, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BrokerError(f"Maven could not fetch Kafka: {done.stdout[-800:]}")
            partial.rename(target)
    return target


def _libraries() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "market-data-ingestor" / f"kafka-{kafka_version()}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clean_up_after_us(pid: int, directory: Path) -> subprocess.Popen[bytes]:
    """A shell that kills `pid` when this process ends, however it ends: its stdin closes then."""
    script = 'read _; kill -9 "$1"; rm -rf "$2"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", str(pid), str(directory)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _admin(bootstrap_servers: str) -> AdminClient:
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap_servers,
        "log_level": 0,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 200,
    }
    return AdminClient(config)
