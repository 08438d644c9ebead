"""The composition root: one TaskGroup owns every task of the process.

`Ingestor` puts the parts together in the order of the data's way and takes them down in the same
order: sockets first, then the last flush, then the sink's drain.
"""

from ingestor.app.ingestor import Drained, Ingestor
from ingestor.app.planning import load_plan

__all__ = ["Drained", "Ingestor", "load_plan"]
