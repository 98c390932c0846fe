"""Figures of a trained model, or of an ensemble, on a data set.

python -m segmodel.evaluate RUN
python -m segmodel.evaluate RUN --data camvid:PATH --split val --guidance both --boundary --trimap 1,3,5,10,20,40
python -m segmodel.evaluate RUN --scales 0.75,1,1.25 --mirror --per-image mirrored.jsonl
python -m segmodel.evaluate OTHER_RUN --compare mirrored.jsonl --bootstrap 1000
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segmodel.common import cli
from segmodel.common.environment import versions
from segmodel.common.errors import UserError
from segmodel.common.files import json_text, output_file, write_output
from segmodel.data import SegmentationData, open_data
from segmodel.evaluation.evaluate import (
    Evaluation,
    check_classes,
    class_numbers,
    evaluate_images,
    result_json,
)
from segmodel.evaluation.metrics import Interval, bootstrap, class_iou, mean_iou, table
from segmodel.evaluation.per_image import aligned, read_per_image, write_per_image
from segmodel.inference.settings import add_inference_options, guidance_modes, inference_config, load_for_inference
from segmodel.model.store import find_checkpoint, read_checkpoint


def check_outputs(options: argparse.Namespace) -> None:
    """What cannot be written shows before the work is done, not after it."""
    given = {f"--{name.replace('_', '-')}": getattr(options, name) for name in ("json", "per_image")}
    paths = [output_file(option, path, overwrite=True).resolve() for option, path in given.items() if path]
    if len(set(paths)) < len(paths):
        raise UserError(f"--per-image: expected another file than that of --json, got {options.per_image}")
    if options.compare and Path(options.compare).resolve() in paths:
        raise UserError(f"--compare: expected another file than those that are written, got {options.compare}")


def parse_widths(text: str | None) -> list[int]:
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--trimap: expected widths in pixels such as 1,3,5,10,20,40, got {text!r}")
    return [int(part) for part in parts]


def make_parser() -> cli.Parser:
    parser = cli.Parser("evaluate", __doc__)
    parser.add_argument("run", help="run folder (its best checkpoint on the validation images) or checkpoint file")
    parser.add_argument("--data", help="data set, such as voc:PATH; python -m segmodel.data --help lists them "
                        "(default: that of the run)")  # fmt: skip
    parser.add_argument("--split", default="val", help="part of the data (default: val)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="so many evenly spaced images only")
    parser.add_argument("--classes", help="also the mean IoU over these classes: names, separated by commas")
    parser.add_argument("--boundary", type=float, nargs="?", const=0.02, metavar="SHARE", help="also Boundary IoU, "
                        "within this share of the diagonal (default share: 0.02)")  # fmt: skip
    parser.add_argument("--trimap", metavar="W,W,...", help="also mIoU within so many pixels of a true boundary")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="95 %% intervals from so many resamples "
                        "of the images")  # fmt: skip
    parser.add_argument("--compare", metavar="FILE", help="differences from another evaluation's --per-image "
                        "FILE.jsonl, with paired intervals (1000 resamples, or those of --bootstrap)")  # fmt: skip
    parser.add_argument("--per-image", metavar="FILE", help="write each image's figures: .csv, else JSON lines")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file as well")
    add_inference_options(parser, modes=("configured", "on", "off", "both"))
    return parser


def main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    config, modes, widths = inference_config(options), guidance_modes(options), parse_widths(options.trimap)
    if options.boundary is not None and not 0 < options.boundary < 1:
        raise UserError(f"--boundary: expected more than 0 and less than 1, got {options.boundary}")
    check_outputs(options)
    for name in ("bootstrap", "limit"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name}: expected at least 0, got {getattr(options, name)}")
    file = find_checkpoint(options.run)
    card, _ = read_checkpoint(file, weights=False)
    models, dtype = load_for_inference([file, *options.ensemble], options)
    spec = options.data or card.get("data")
    if not spec:
        raise UserError("--data: expected, since the checkpoint does not name its data")
    data = open_data(spec, split=options.split)
    check_classes(file, models[0].classes, data)
    subset = class_numbers(options.classes, data.classes)
    earlier = read_per_image(options.compare, len(data.classes)) if options.compare else {}
    found = evaluate_images(
        models, data, modes=tuple(modes.values()), config=config, dtype=dtype, boundary=options.boundary,
        widths=widths, limit=options.limit,
    )  # fmt: skip
    results = dict(zip(modes, found, strict=True))
    others = [str(find_checkpoint(path)) for path in options.ensemble]
    print(f"{' + '.join([str(file), *others])}\n{spec}, {options.split}: {len(found[0].names)} images\n")
    counts_before: dict[str, np.ndarray] = {}
    misfit = None
    try:
        for title, counts in earlier.items():
            counts_before[f"{options.compare}: {title}"] = aligned(title, counts, found[0].names)
    except UserError as error:  # shows only now; what was found is still told and written
        counts_before, misfit = {}, error
    report = show(results, data, subset=subset, resamples=options.bootstrap, earlier=counts_before)
    if options.per_image:
        write_per_image(options.per_image, results)
    if options.json:
        content = {"checkpoint": str(file), "ensemble": others, "data": spec, "split": options.split,
                   "images": len(found[0].names), "limit": options.limit, "classes": options.classes,
                   "boundary": options.boundary, "guidance": options.guidance,
                   "guidance_radius": options.guidance_radius, "guidance_weight": options.guidance_weight,
                   "inference": dataclasses.asdict(config), "precision": str(dtype or torch.float32),
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
    more = further_rows(results, subset)
    print(table({title: result.scores for title, result in results.items()}, data.classes, more=more))
    if subset:
        print(f"chosen classes: {', '.join(data.classes[index] for index in subset)}")
    report = {title: result_json(result.scores, data.classes) for title, result in results.items()}
    for title, result in results.items():
        report[title] |= further_json(result, data.classes, subset)
    figures = {"mIoU": mean_iou} | ({"mIoU of chosen classes": partial(mean_iou, classes=subset)} if subset else {})
    first = next(iter(results.values()))
    for title, result in results.items():
        for name, figure in figures.items():
            if resamples:
                _line(report, title, name, bootstrap(result.counts, figure=figure, resamples=resamples), signed=False)
            if resamples and result is not first:
                found = bootstrap(result.counts, minus=first.counts, figure=figure, resamples=resamples)
                _line(report, title, f"{name} minus {next(iter(results))}", found)
            for other, counts in earlier.items():
                found = bootstrap(result.counts, minus=counts, figure=figure, resamples=resamples or 1000)
                _line(report, title, f"{name} minus {other}", found)
    return report


def further_rows(results: Mapping[str, Evaluation], subset: Sequence[int]) -> dict[str, list[float]]:
    """What the options ask for beyond the usual figures, by name, a value a result."""
    rows: dict[str, list[float]] = {}
    for result in results.values():
        values = {"ADE20K score": result.scores.ade20k_score}
        if subset:
            values["mIoU of chosen classes"] = float(mean_iou(result.counts.sum(0), classes=subset))
        if len(result.boundary):
            values["Boundary IoU"] = float(mean_iou(result.boundary.sum(0)))
        for width, counts in result.trimap.items():
            values[f"mIoU within {width} px"] = float(mean_iou(counts.sum(0)))
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    return rows


def further_json(result: Evaluation, classes: Sequence[str], subset: Sequence[int]) -> dict:
    """The same for one result, as JSON values."""
    values: dict[str, Any] = {}
    if subset:
        values["miou_of_classes"] = float(mean_iou(result.counts.sum(0), classes=subset))
    if len(result.boundary):
        values["boundary_iou"] = float(mean_iou(result.boundary.sum(0)))
        values["boundary_iou_by_class"] = dict(zip(classes, class_iou(result.boundary.sum(0)).tolist(), strict=True))
    if result.trimap:
        values["miou_within"] = {str(width): float(mean_iou(part.sum(0))) for width, part in result.trimap.items()}
    return json.loads(json_text(values))


def _line(report: dict[str, dict], title: str, name: str, found: Interval, *, signed: bool = True) -> None:
    """Prints an interval in percent and keeps it."""
    value, low, high = (f"{100 * number:{'+' if signed else ''}.2f}" for number in dataclasses.astuple(found))
    print(f"{title}: {name}: {value} (95 % interval {low} to {high})")
    report[title].setdefault("intervals", {})[name] = dataclasses.asdict(found)


if __name__ == "__main__":
    sys.exit(cli.run("evaluate", main))
