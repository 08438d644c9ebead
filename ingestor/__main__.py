"""`python -m ingestor` is the command `ingestor`."""

from __future__ import annotations

import sys

from ingestor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
