"""Writes the report of a run, one HTML file: ``python -m segmodel.report RUN`` (every training does it at its end)."""

import sys
from collections.abc import Sequence
from pathlib import Path

from segmodel.common import cli
from segmodel.common.terminal import say
from segmodel.training.report import write_report


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("report", __doc__)
    parser.add_argument("run", metavar="RUN", help="run folder")
    say(str(write_report(Path(parser.parse_args(arguments).run))))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("report", main))
