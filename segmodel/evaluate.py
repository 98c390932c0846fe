"""Figures of a trained model, or of an ensemble, on a data set.

python -m segmodel.evaluate RUN
python -m segmodel.evaluate RUN --data camvid:PATH --split val --guidance both --boundary --trimap 1,3,5,10,20,40
python -m segmodel.evaluate RUN --scales 0.75,1,1.25 --mirror --per-image mirrored.jsonl
python -m segmodel.evaluate OTHER_RUN --compare mirrored.jsonl --bootstrap 1000
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from segmodel.common import cli
from segmodel.common.environment import versions
from segmodel.common.errors import UserError
from segmodel.common.files import json_text, output_file, write_output
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.terminal import say
from segmodel.data import SegmentationData, open_data
from segmodel.evaluation.boundary import SHARE
from segmodel.evaluation.evaluate import Evaluation, check_classes, class_numbers, evaluate_images, result_json
from segmodel.evaluation.metrics import bootstrap, class_iou, mean_iou, table
from segmodel.evaluation.per_image import aligned, read_per_image, write_per_image
from segmodel.inference.settings import GUIDANCE, UntrainedCRF, add_inference_options, load_for_inference
from segmodel.model.store import find_checkpoint, read_checkpoint


@dataclass(frozen=True)
class Options(Section):
    """What is evaluated on what, and which figures are wanted."""

    data: str | None = option(
        None, "data set, such as voc:PATH; python -m segmodel.data --help lists them", "the run's"
    )
    split: str = option("val", "part of the data")
    images: int = option(0, "so many evenly spaced images only; 0: all", at_least=0)
    guidance: Literal["configured", "on", "off", "both", "auto"] | None = option(
        None, "configured, on, off, both or auto: " + GUIDANCE
    )
    classes: tuple[str, ...] = option((), "also the mean IoU over these classes: names, separated by commas")
    trimap: tuple[int, ...] = option(
        (), "also mIoU within so many pixels of a true boundary: W,W,...", at_least=1, at_most=10**5
    )
    bootstrap: int = option(0, "95 % intervals from so many resamples of the images", at_least=0, at_most=10**6)
    compare: str | None = option(
        None, "differences from another evaluation's --per-image FILE.jsonl, with paired intervals (1000 resamples, or "
        "those of --bootstrap)"
    )  # fmt: skip
    per_image: str | None = option(None, "write each image's figures to this file: .csv, else JSON lines")
    json: str | None = option(None, "write the figures to this file as well")

    def check_outputs(self) -> None:
        """Reports files that cannot be written before the work is done."""
        given = {"--json": self.json, "--per-image": self.per_image}
        paths = [os.path.realpath(path) for path in given.values() if path]
        if len(set(paths)) < len(paths):
            raise UserError(f"--per-image: expected another file than that of --json, got {self.per_image}")
        if self.compare and os.path.realpath(self.compare) in paths:
            raise UserError(f"--compare: expected another file than those that are written, got {self.compare}")
        for flag, path in given.items():
            if path:
                output_file(flag, path, overwrite=True)


def make_parser() -> cli.Parser:
    parser = cli.Parser("evaluate", __doc__)
    parser.add_argument("run", help="run folder (its best checkpoint on the validation images) or checkpoint file")
    parser.add_argument("--boundary", type=float, nargs="?", const=SHARE, metavar="SHARE", help="also Boundary IoU, "
                        f"within this share of the diagonal (default share: {SHARE})")  # fmt: skip
    add_flags(parser, {"evaluation": Options})
    add_inference_options(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    given = make_parser().parse_args(arguments)
    options, boundary = from_flags(given, Options), given.boundary
    if boundary is not None and not 0 < boundary < 1:
        raise UserError(f"--boundary: expected more than 0 and less than 1, got {boundary}")
    options.check_outputs()
    file = find_checkpoint(given.run)
    spec = options.data or read_checkpoint(file, weights=False)[0].get("data")
    if not spec:
        raise UserError("--data: expected, since the checkpoint does not name its data")
    setup = load_for_inference(file, given, options.guidance)
    data = open_data(spec, split=options.split)
    check_classes(file, setup.models[0].classes, data)
    subset = class_numbers(options.classes, data.classes)
    earlier = read_per_image(options.compare, len(data.classes)) if options.compare else {}
    results = evaluate_images(data=data, boundary=boundary, widths=options.trimap, images=options.images, **vars(setup))
    names = next(iter(results.values())).names
    others = [str(find_checkpoint(path)) for path in given.ensemble]
    say(" + ".join([str(file), *others]), f"{spec}, {options.split}: {len(names)} images", *data.notes, "")
    counts_before: dict[str, np.ndarray] = {}
    misfit = None
    try:
        for title, counts in earlier.items():
            counts_before[f"{options.compare}: {title}"] = aligned(title, counts, names)
    except UserError as error:  # raised in the end: what was found is still printed and written
        counts_before, misfit = {}, error
    report = show(results, data, subset=subset, resamples=options.bootstrap, earlier=counts_before)
    if options.per_image:
        write_per_image(options.per_image, results)
    if options.json:
        content = {"checkpoint": str(file), "ensemble": others, "data": spec, "split": options.split,
                   "images": len(names), "limit": options.images, "classes": options.classes, "boundary": boundary,
                   "guidance": options.guidance, **asdict(from_flags(given, UntrainedCRF)),
                   "inference": asdict(setup.config), "precision": str(setup.dtype or torch.float32),
                   "results": report, "versions": versions()}  # fmt: skip
        write_output("--json", Path(options.json), json_text(content, indent=1) + "\n")
    if misfit:
        raise misfit
    return 0


def show(
    results: Mapping[str, Evaluation],
    data: SegmentationData,
    *,
    subset: Sequence[int],
    resamples: int,
    earlier: Mapping[str, np.ndarray],
) -> dict[str, dict]:
    """Prints the table, intervals and differences; returns all of it as JSON values by title.

    ``earlier``: counts ``(N, 3, C)`` of other results on the same images, by name.
    """
    report = {title: result_json(result.scores, data.classes) for title, result in results.items()}
    rows: dict[str, list[float]] = {}
    for title, result in results.items():
        for name, key, value in further_figures(result, subset, mean_score=data.mean_score):
            rows.setdefault(name, []).append(value)
            group, _, last = key.rpartition("/")
            (report[title].setdefault(group, {}) if group else report[title])[last] = value
        if len(result.boundary):
            iou = class_iou(result.boundary.sum(0)).tolist()
            report[title]["boundary_iou_by_class"] = dict(zip(data.classes, iou, strict=True))
    say(*table({title: result.scores for title, result in results.items()}, data.classes, more=rows).split("\n"))
    if subset:
        say(f"chosen classes: {', '.join(data.classes[index] for index in subset)}")
    figures = {"mIoU": mean_iou} | ({"mIoU of chosen classes": partial(mean_iou, classes=subset)} if subset else {})
    first = next(iter(results))
    for title, result in results.items():
        others = {**({first: results[first].counts} if resamples and title != first else {}), **earlier}
        for name, figure in figures.items():
            judge = partial(bootstrap, result.counts, figure=figure, resamples=resamples or 1000)
            found = {name: judge()} if resamples else {}
            found |= {f"{name} minus {other}": judge(minus=counts) for other, counts in others.items()}
            for text, interval in found.items():
                sign = "" if text == name else "+"
                middle, low, high = (f"{100 * number:{sign}.2f}" for number in astuple(interval))
                say(f"{title}: {text}: {middle} (95 % interval {low} to {high})")
                report[title].setdefault("intervals", {})[text] = asdict(interval)
    return report


def further_figures(result: Evaluation, subset: Sequence[int], *, mean_score: str = "") -> list[tuple[str, str, float]]:
    """What is printed beside the usual figures: name of the row, key or GROUP/KEY in the JSON file, value."""
    figures = [(mean_score, "ade20k_score", result.scores.ade20k_score)] if mean_score else []
    if subset:
        value = float(mean_iou(result.counts.sum(0), classes=subset))
        figures.append(("mIoU of chosen classes", "miou_of_classes", value))
    if len(result.boundary):
        figures.append(("Boundary IoU", "boundary_iou", float(mean_iou(result.boundary.sum(0)))))
    for width, value in zip(result.widths, mean_iou(result.trimap.sum(0)).tolist(), strict=True):
        figures.append((f"mIoU within {width} px", f"miou_within/{width}", value))
    return figures


if __name__ == "__main__":
    sys.exit(cli.run("evaluate", main))
