"""Settings of segmodel.refine for a model's scores: found on a few labelled images, judged on others.

    python -m segmodel.tune SCORES --data folder:mine --output tuned.json   # SCORES/NAME.npy of any model: (C, h, w)
    python -m segmodel.tune RUN --data voc:VOCdevkit --report val           # a run of segmodel.train, guidance off

The search begins where segmodel.refine does without settings: all follow from each picture's scores. One setting after
the other (radius, weight, balance, eps, iterations) is then set to the best of a few values, or left to the scores,
until none changes any more. The weight 0 is among them: where no refinement helps, none is the result. A dozen
pictures of VOC's size take about three minutes of one core. Look at the intervals: what may gain nothing over the
defaults is not worth a file.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from segmodel.common import cli
from segmodel.common.environment import versions
from segmodel.common.files import is_stream, json_text, output_file, write_output
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.tables import Table
from segmodel.common.terminal import say
from segmodel.data import open_data
from segmodel.data.base import evenly_spaced
from segmodel.evaluation.tuning import TRIMAP, Metric, report, settings_text, tune_refinement
from segmodel.experiments.scored import labelled, scores_of
from segmodel.inference.settings import DEVICE
from segmodel.model.untrained_crf import Refinement


@dataclass(frozen=True)
class Options(Section):
    """On which images the settings are found and judged."""

    split: str = option("train", "part of the data to tune on")
    images: int = option(24, "evenly spaced images of it; 0: all", at_least=0)
    metric: Metric = option("miou", "what to maximise")
    stride: int | None = option(None, "blocks of the CRF; 1: full size", "from the scores", at_least=1, at_most=4096)
    report: str | None = option(None, "then judge the settings on this part of the data")
    report_images: int = option(0, "evenly spaced images of it; 0: all", at_least=0)
    output: str | None = option(None, "write settings and figures to this file, for segmodel.refine")
    overwrite: bool = option(False, "replace the output if it is there already")
    device: str = option("auto", DEVICE)


def table(title: str, result: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figures of ``report`` in percent, and how they change."""
    names = {"miou": "mIoU", "boundary_iou": "Boundary IoU", f"trimap_{TRIMAP}": f"trimap {TRIMAP} px"}
    figures = [result[title] for title in ("before", "defaults", "after")]
    rows = [[name, *(100 * found[key] for found in figures), gained(result["gain"][key]),
             gained(result["over_defaults"][key])] for key, name in names.items()]  # fmt: skip
    more = max(0, 1000 * (figures[2]["seconds"] - figures[0]["seconds"]))
    head = ["%", "before", "defaults", "tuned", "gain (95 % interval)", "over the defaults"]
    return Table(title, head, rows, f"{more:.2g} ms an image")


def gained(interval: Sequence[float]) -> str:
    """A gain in points with its interval."""
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * value for value in interval))


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
    tuned = tune_refinement(samples, metric=options.metric, start=Refinement(stride=options.stride))
    settings = asdict(tuned.settings)
    say(settings_text(settings))
    say(f"{given.data}, {options.split}, {len(samples)} images: {options.metric} {100 * tuned.before:.2f}, with the "
        f"defaults {100 * tuned.started:.2f}, tuned {100 * tuned.after:.2f} ({len(tuned.tried)} settings tried)",
        f"gain {gained(astuple(tuned.gain))}, over the defaults {gained(astuple(tuned.over_start))}, on the images "
        "it was chosen on")  # fmt: skip
    content = {"settings": settings, "data": given.data, "split": options.split, "images": len(samples),
               "metric": options.metric, "before": tuned.before, "defaults": tuned.started, "after": tuned.after,
               "gain": asdict(tuned.gain), "over_defaults": asdict(tuned.over_start)}  # fmt: skip

    def keep() -> None:
        if output:
            write_output("--output", output, json_text({**content, "versions": versions()}, indent=1) + "\n")

    if held_out is None or not (output and is_stream(output)):
        keep()
    if held_out is not None:
        del samples
        result = report(labelled(held_out, options.report_images, scores, "report"), tuned.settings)
        count = len(evenly_spaced(len(held_out), options.report_images))
        say("", table(f"{given.data}, {options.report}, {count} images:", result))
        content["report"] = {"split": options.report, "images": count, **result}
        keep()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("tune", main))
