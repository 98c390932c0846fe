"""Moved to ``python -m segmodel.benchmark --only memory``."""

import sys

from segmodel.common import cli

if __name__ == "__main__":
    sys.exit(cli.moved("memory", "benchmark --only memory"))
