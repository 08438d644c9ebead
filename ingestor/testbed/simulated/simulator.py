"""The simulated venue's server: many connections at a set rate, for far less than reading costs.

It speaks the protocol of feeds/simulated.py, or a real venue's, over real websockets, on as many
addresses and ports as wanted. Every frame carries the time at which it was sent. Faults happen on
demand: see `Faults`. It runs within a test, or as a process of its own:

    python -m ingestor.testbed.simulated.simulator --json --symbols 1000 --rate 20

which prints one JSON line with its addresses and ends when its standard input is closed.
GET /instruments lists the instruments, GET /control/NAME?ARGUMENT=VALUE calls a method of `Faults`
by its name, GET /control/statistics says what was sent and what it cost.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import ssl
import sys
import threading
from collections.abc import Sequence

import orjson
import uvloop

from ingestor.model.errors import ConfigError
from ingestor.testbed.simulated.dialects import dialect_of
from ingestor.testbed.simulated.market import Shape
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import Faults, SimulatorOptions, SimulatorStatistics

__all__ = ["Faults", "Shape", "Simulator", "SimulatorOptions", "SimulatorStatistics", "serve"]


async def serve(
    options: SimulatorOptions, *, as_json: bool, ssl_context: ssl.SSLContext | None = None
) -> None:
    """Serve until cancelled, or with `as_json` until standard input is closed.

    Args:
        options: The venue's options.
        as_json: Print the addresses as one JSON object.
        ssl_context: Serve wss.
    """
    async with Simulator(options, ssl_context) as simulator:
        about = {
            "addresses": simulator.addresses,
            "rest": simulator.rest,
            "symbols": options.symbols,
        }
        sys.stdout.write(orjson.dumps(about).decode() + "\n")
        sys.stdout.flush()
        gc.collect()
        gc.freeze()
        stopped = asyncio.Event()
        if as_json:
            loop = asyncio.get_running_loop()

            def watch() -> None:
                sys.stdin.buffer.read()
                loop.call_soon_threadsafe(stopped.set)

            threading.Thread(target=watch, daemon=True).start()
        await stopped.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m ingestor.testbed.simulated.simulator`."""
    defaults, shape = SimulatorOptions(), Shape()
    parser = argparse.ArgumentParser(description="The simulated venue.")
    parser.add_argument("--json", action="store_true", help="end when standard input is closed")
    parser.add_argument("--symbols", type=int, default=defaults.symbols)
    parser.add_argument("--rate", type=float, default=defaults.rate_per_s, help="0 = saturate")
    parser.add_argument("--dialect", default=defaults.dialect, help="whose form the frames have")
    parser.add_argument("--levels", type=int, default=shape.levels, help="in a book update")
    parser.add_argument("--depth", type=int, default=shape.depth, help="of a book, each side")
    parser.add_argument("--hosts", default="127.0.0.1", help="with commas between")
    parser.add_argument("--ports", default="0", help="with commas between; 0 = a free one")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--certificate", help="PEM with key and certificate: serve TLS")
    given = parser.parse_args(arguments)
    try:
        dialect_of(given.dialect)
    except ConfigError as unknown:
        parser.error(str(unknown))
    options = SimulatorOptions(
        symbols=given.symbols,
        rate_per_s=given.rate,
        dialect=given.dialect,
        shape=Shape(levels=given.levels, depth=given.depth),
        hosts=tuple(given.hosts.split(",")),
        ports=tuple(map(int, given.ports.split(","))),
        seed=given.seed,
    )
    context = None
    if given.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate)
    uvloop.run(serve(options, as_json=given.json, ssl_context=context))


if __name__ == "__main__":
    main()
