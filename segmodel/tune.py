"""Settings of segmodel.refine for a model's scores: found on a few labelled images, judged on others.

    python -m segmodel.tune SCORES --data folder:mine --output tuned.json   # SCORES/NAME.npy of any model: (C, h, w)
    python -m segmodel.tune RUN --data voc:VOCdevkit --report val           # a run of segmodel.train, guidance off

One setting after the other (radius, weight, eps) is set to the best of a few values until none changes any more. The
weight 0 is among them: where no refinement helps, none is the result.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from segmodel.common import cli
from segmodel.common.environment import versions
from segmodel.common.files import json_text, output_file, write_output
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.tables import Table
from segmodel.data import open_data
from segmodel.data.base import evenly_spaced
from segmodel.experiments.scored import labelled, scores_of
from segmodel.experiments.tuning import TRIMAP, Metric, report, tune_refinement
from segmodel.inference.refinement import Refinement
from segmodel.inference.settings import DEVICE


@dataclass(frozen=True)
class Options(Section):
    """On which images the settings are found and judged."""

    split: str = option("train", "part of the data to tune on")
    images: int = option(24, "evenly spaced images of it; 0: all", at_least=0)
    metric: Metric = option("miou", "what to maximise")
    stride: int = option(4, "blocks of the CRF; 1: full size", at_least=1)
    report: str | None = option(None, "then judge the settings on this part of the data")
    report_images: int = option(0, "evenly spaced images of it; 0: all", at_least=0)
    output: str | None = option(None, "write settings and figures to this file, for segmodel.refine")
    overwrite: bool = option(False, "replace the output if it is there already")
    device: str = option("auto", DEVICE)


def table(title: str, result: Mapping[str, Mapping[str, float]]) -> Table:
    """Figures of ``report`` in percent, and how they change."""
    names = {"miou": "mIoU", "boundary_iou": "Boundary IoU", f"trimap_{TRIMAP}": f"trimap {TRIMAP} px"}
    before, after = result["before"], result["after"]
    rows = [[name, 100 * before[key], 100 * after[key], f"{100 * (after[key] - before[key]):+.2f}"]
            for key, name in names.items()]  # fmt: skip
    more = max(0, 1000 * (after["seconds"] - before["seconds"]))
    return Table(title, ["%", "before", "after", "change"], rows, f"{more:.0f} ms an image")


def make_parser() -> cli.Parser:
    parser = cli.Parser("tune", __doc__ or "")
    parser.add_argument("scores", metavar="SCORES|RUN", help="folder of NAME.npy logits, or a run or checkpoint")
    parser.add_argument("--data", required=True, help="as for segmodel.train, such as folder:PATH")
    add_flags(parser, {"tuning": Options})
    return parser


def main(arguments: Sequence[str]) -> int:
    given = make_parser().parse_args(arguments)
    options: Options = from_flags(given, Options)
    output = output_file("--output", options.output, overwrite=options.overwrite) if options.output else None
    data = open_data(given.data, split=options.split)
    held_out = open_data(given.data, split=options.report) if options.report else None
    scores = scores_of(given.scores, options.device, data)
    samples = list(labelled(data, options.images, scores, "scores"))
    tuned = tune_refinement(samples, metric=options.metric, start=replace(Refinement.paper(), stride=options.stride))
    settings = asdict(tuned.settings)
    print(", ".join(f"{name} {value:g}" for name, value in settings.items()))
    print(f"{given.data}, {options.split}, {len(samples)} images: {options.metric} {100 * tuned.before:.2f} -> "
          f"{100 * tuned.after:.2f} ({len(tuned.tried)} settings tried)")  # fmt: skip
    content = {"settings": settings, "data": given.data, "split": options.split, "images": len(samples),
               "metric": options.metric, "before": tuned.before, "after": tuned.after}  # fmt: skip

    def keep() -> None:
        if output:
            write_output("--output", output, json_text({**content, "versions": versions()}, indent=1) + "\n")

    keep()
    if held_out is not None:
        del samples
        result = report(labelled(held_out, options.report_images, scores, "report"), tuned.settings)
        count = len(evenly_spaced(len(held_out), options.report_images))
        print("\n" + table(f"{given.data}, {options.report}, {count} images:", result).text())
        content["report"] = {"split": options.report, "images": count, **result}
        keep()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("tune", main))
