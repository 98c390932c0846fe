"""Trains the configurations of Table 3 and two peers on one data set, and compares them.

    python -m segmodel.ablate --output DIR                                  # built-in scenes
    python -m segmodel.ablate --output DIR --data voc:VOCdevkit --init-weights resnet101.pth --seeds 0,1
    python -m segmodel.ablate --output DIR --report-only                    # what DIR/runs holds, as it is

DIR gets runs/VARIANT-seedS (ordinary run folders), figures/ (what each predicts, in numbers), report.html with tables 3
and 4 and figures 5 to 7, and results.json. Called again, it goes on: nothing that is finished is done twice.
Every option of segmodel.train may be given; what makes a variant comes last and cannot be overridden.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.common.options import add_flags
from segmodel.data import open_data
from segmodel.evaluation.evaluate import class_numbers
from segmodel.experiments.runs import finished_runs, planned_runs, train_all
from segmodel.model.config import VARIANTS
from segmodel.training.settings import SECTIONS


def names_list(text: str) -> list[str]:
    """Variants, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"--variants: expected some of {', '.join(VARIANTS)}, got {name!r}")
    return sorted(set(names), key=list(VARIANTS).index)


def numbers_list(text: str) -> list[int]:
    """Seeds, separated by commas."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise UserError(f"--seeds: expected whole numbers from 0 on, separated by commas, got {text!r}")
    return sorted(set(seeds))


def size_pair(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT as (height, width)."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise UserError(f"--time-size: expected WIDTHxHEIGHT such as 500x300, got {text!r}")
    return int(match[2]), int(match[1])


def make_parser() -> cli.Parser:
    parser = cli.Parser("ablate", __doc__)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of runs and report")
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"default: {','.join(VARIANTS)}")
    parser.add_argument("--seeds", help="default: 0,1; with --report-only all that are there")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs trained at a time (default: 1)")
    parser.add_argument("--report-only", action="store_true", help="train nothing, report the finished runs (settings "
                        "of training have no effect)")  # fmt: skip
    parser.add_argument(
        "--classes",
        type=lambda text: [name.strip() for name in text.split(",")],
        default=(),
        help="also the mean IoU over these classes: names, separated by commas",
    )
    parser.add_argument("--time-size", default="500x300", metavar="WxH", help="image of Table 4 (default: 500x300)")
    parser.add_argument("--time-seconds", type=float, default=10.0, metavar="S", help="time for each variant there")
    parser.add_argument("--no-dense", action="store_true", help="without the bilateral dense CRF (slow; pydensecrf)")
    parser.add_argument("--ceilings", action="store_true", help="also the best scores that codes of n x n can reach")
    parser.add_argument("--config", metavar="FILE", help="TOML file with sections [model], [augmentation], [train]")
    parser.add_argument("--recipe", metavar="NAME", help="settings that ship with the package (as for segmodel.train)")
    add_flags(parser, SECTIONS)
    return parser


def main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    options.variants = names_list(options.variants)
    seeds = numbers_list(options.seeds) if options.seeds is not None else None
    options.seeds = seeds or [0, 1]
    options.time_size = size_pair(options.time_size)
    if options.jobs < 1 or options.jobs > 4 * (os.cpu_count() or 1):
        raise UserError(f"--jobs: expected 1 to {4 * (os.cpu_count() or 1)}, got {options.jobs}")
    if not options.time_seconds > 0:
        raise UserError(f"--time-seconds: expected more than 0, got {options.time_seconds}")
    if options.report_only:
        runs, notes = finished_runs(options.output, options.variants, seeds)
    else:
        runs, notes = planned_runs(options), []
        class_numbers(options.classes, open_data(runs[0].config.train.data, split="val").classes)  # a wrong name now
        try:
            (options.output / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output: {options.output / 'runs'}: cannot be made ({error.strerror})") from error
        status = train_all(runs, jobs=options.jobs)
        if status:
            if status > 128:  # a signal: train has said so, and saved its state
                print(f"segmodel.ablate: the same command goes on with {options.output}", file=sys.stderr)
            return status
    from segmodel.experiments.tables import write_report

    write_report(runs, notes, options)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("ablate", main))
