"""Moved to ``python -m segmodel.benchmark --only loader``."""

import sys

from segmodel.common import cli

if __name__ == "__main__":
    sys.exit(cli.moved("throughput", "benchmark --only loader"))
