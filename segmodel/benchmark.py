"""Times the operators against the peers that are installed: python -m segmodel.benchmark --threads 2 --json FILE

Peers: OpenCV's ximgproc.guidedFilter (opencv-contrib-python-headless), kornia's guided_blur, pydensecrf. All
contestants of a table take turns in one run, so that their ratios survive a busy machine; a result that differs from
its peer's where both must agree is an error, not a figure.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segmodel.common import cli
from segmodel.common.environment import environment, peer
from segmodel.common.errors import UserError
from segmodel.common.files import write_output
from segmodel.experiments.operators import operator_tables, print_table


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("benchmark", __doc__.splitlines()[0])
    parser.add_argument("--only", choices=("operators", "model", "gpu"), help="some of the tables (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and OpenCV (default: 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each contestant (default: 2)")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto",
                        help="dtype of the model's convolutions (default: auto)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        raise UserError(f"--threads: expected at least 1, got {options.threads}")
    if not options.seconds > 0:
        raise UserError(f"--seconds: expected more than 0, got {options.seconds}")
    torch.set_num_threads(options.threads)
    cv2 = peer("cv2")
    if cv2 is not None:
        cv2.setNumThreads(options.threads)
    report: dict[str, Any] = environment()
    print(json.dumps(report), "times in ms", sep="\n")
    tables: dict[str, Any] = {}
    if options.only in (None, "operators"):
        tables |= operator_tables(options.seconds)
    if options.only in (None, "model"):
        from segmodel.experiments.models import model_tables

        tables |= model_tables(options.seconds, precision=options.precision)
    for title, rows in tables.items():
        print_table(title, rows)
    report |= {"milliseconds": tables}
    if options.only in (None, "gpu"):
        from segmodel.experiments import gpu as benchmark_gpu

        report["gpu"] = benchmark_gpu.tables()
        benchmark_gpu.print_tables(report["gpu"])
    if options.json:
        write_output("--json", Path(options.json), json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("benchmark", main))
