"""Trains the configurations of Table 3, two peers, or these with other settings on one data set, and compares them.

    python -m segmodel.ablate --output DIR                                  # built-in scenes
    python -m segmodel.ablate --output DIR --data voc:VOCdevkit --init-weights resnet101.pth --seeds 0,1,2 --jobs 3
    python -m segmodel.ablate --output DIR --variants "patch:patch_size=1,patch,patch:patch_size=4,guide"
    python -m segmodel.ablate --output DIR --report-only                    # what DIR/runs holds, as it is

A variant is NAME, or NAME:FIELD=VALUE+FIELD=VALUE with other settings of [model], [augmentation] or [train]; a list
stands in brackets: "context:rings=[[1,3],[3,7]]". DIR gets runs/VARIANT-seedS (ordinary run folders, + for the colon),
figures/ (what each predicts, in numbers), results.json, and report.html: what each part adds as a table and a plot, the
images where two parts differ most, then all figures, table 4, and figures 5 to 7. The same command again continues what
was stopped and repeats nothing that is finished. Every setting of segmodel.train may be given, except for those that
make a variant.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.common.files import claim_folder, json_text, write_output
from segmodel.common.options import add_flags, from_flags
from segmodel.common.terminal import say
from segmodel.data import open_data
from segmodel.evaluation.evaluate import class_numbers
from segmodel.experiments.ablation import evaluate_runs
from segmodel.experiments.runs import AblationOptions, finished_runs, planned_runs, train_all
from segmodel.training.settings import SECTIONS


def make_parser() -> cli.Parser:
    parser = cli.Parser("ablate", __doc__)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of runs and report")
    parser.add_argument("--config", metavar="FILE", help="TOML file with sections [model], [augmentation], [train]")
    parser.add_argument("--recipe", metavar="NAME", help="settings that ship with the package (as for segmodel.train)")
    add_flags(parser, {"ablation": AblationOptions, **SECTIONS})
    return parser


def main(arguments: Sequence[str]) -> int:
    given = make_parser().parse_args(arguments)
    options, output = from_flags(given, AblationOptions), given.output
    if options.report_only:
        runs, notes = finished_runs(output, options)
    else:
        runs, notes = planned_runs(given, options, output), []
    data = open_data(runs[0].config.train.data, split="val")
    classes = class_numbers(options.classes, data.classes)  # before the training: a wrong name shows at once
    if not options.report_only:
        try:
            (output / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output: {output / 'runs'}: cannot be made ({error.strerror})") from error
        claim_folder("--output", output)
        status = train_all(runs, jobs=options.jobs)
        if status:
            if status > 128:  # a signal: train has said so, and saved its state
                say(f"segmodel.ablate: the same command continues {output}", error=True)
            return status
    report = evaluate_runs(runs, notes, data, classes=classes, options=options)
    say(*report.text().split("\n"))
    page, results = output / "report.html", output / "results.json"
    write_output("--output", page, report.page())
    write_output("--output", results, json_text(report.values(), indent=1) + "\n")
    say("", f"report: {page}", f"figures: {results}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("ablate", main))
