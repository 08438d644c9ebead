"""Turn frequent frames into rows in C, where a library was compiled; README.md explains it."""

from ingestor.native.library import Native, native
from ingestor.native.steps import CompiledShape, Step
from ingestor.native.taker import FrameTaker, Taken, TakenRows

__all__ = ["CompiledShape", "FrameTaker", "Native", "Step", "Taken", "TakenRows", "native"]
