"""Figures of a trained model, or of an ensemble, on a data set.

python -m segmodel.evaluate RUN
python -m segmodel.evaluate RUN --data camvid:PATH --split val --guidance both --boundary --trimap 1,3,5,10,20,40
python -m segmodel.evaluate RUN --scales 0.75,1,1.25 --mirror --per-image mirrored.jsonl
python -m segmodel.evaluate OTHER_RUN --compare mirrored.jsonl --bootstrap 1000
"""

import argparse
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from segmodel import cli, distributed
from segmodel.boundary import boundary_counts, trimap_counts
from segmodel.checkpoint import find_checkpoint, json_text, read_checkpoint, versions
from segmodel.data import SegmentationData, open_data
from segmodel.files import output_file, write_output
from segmodel.inference import (
    InferenceConfig,
    add_inference_options,
    evaluating,
    guidance_modes,
    inference_config,
    load_for_inference,
    predict_images,
    same_size_batches,
)
from segmodel.metrics import (
    ConfusionMatrix,
    Interval,
    Scores,
    bootstrap,
    class_iou,
    mean_iou,
    pixel_accuracy,
    scores,
    table,
)
from segmodel.model import SegModel
from segmodel.options import UserError


@dataclass(frozen=True)
class Evaluation:
    """One result on N images: int64 counts ``(N, 3, C)`` (see ``metrics``), of all pixels and of those at boundaries.

    ``boundary``: counts whose IoU is Boundary IoU. ``trimap``: by width. Both are empty where they were not asked for.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    boundary: np.ndarray
    trimap: dict[int, np.ndarray]

    @property
    def scores(self) -> Scores:
        return scores(self.counts.sum(0))


def evaluate_images(
    models: Sequence[SegModel],
    data: SegmentationData,
    *,
    modes: Sequence[bool | None] = (None,),
    config: InferenceConfig | None = None,
    dtype: torch.dtype | None = None,
    boundary: float | None = None,
    widths: Sequence[int] = (),
    description: str = "evaluate",
    leave: bool = True,
    limit: int = 0,
) -> list[Evaluation]:
    """Evaluates one model or an ensemble on a data set, once for each ``guidance`` mode (None: as configured).

    Args:
        models: in evaluation mode, of the data's classes.
        config, dtype: see ``predict_images``.
        boundary: share of the diagonal for Boundary IoU; None leaves it out.
        widths: of the trimaps, in pixels.
        limit: so many evenly spaced images only.

    Several processes share the images; each gets the results of its own.
    """
    config = config or InferenceConfig()
    chosen = np.linspace(0, len(data) - 1, min(limit or len(data), len(data))).astype(int).tolist()
    chosen = chosen[distributed.rank() :: distributed.world_size()]
    quiet = None if distributed.is_writer() else True
    classes = len(data.classes)
    names: list[str] = []
    counts: list[list[np.ndarray]] = [[] for _ in modes]
    edges: list[list[np.ndarray]] = [[] for _ in modes]
    bands: list[list[list[np.ndarray]]] = [[] for _ in modes]
    samples = (data[index] for index in chosen)
    with tqdm(total=len(chosen), desc=description, unit="image", leave=leave, disable=quiet) as progress:
        for batch, images in same_size_batches(samples, config.batch_size, image=lambda sample: sample.image):
            names += [sample.name for sample in batch]
            for mode, found in enumerate(predict_images(models, images, modes=modes, config=config, dtype=dtype)):
                for prediction, sample in zip(found.labels(), batch, strict=True):
                    matrix = ConfusionMatrix(classes)
                    matrix.update(prediction, sample.label)
                    counts[mode].append(matrix.class_counts())
                    if boundary is not None:
                        edges[mode].append(boundary_counts(prediction, sample.label, classes, ratio=boundary))
                    if widths:
                        bands[mode].append(trimap_counts(prediction, sample.label, classes, widths=widths))
            progress.update(len(batch))
    return [
        Evaluation(
            tuple(names), np.array(counts[mode], np.int64).reshape(-1, 3, classes), np.array(edges[mode]),
            {width: np.stack([image[index] for image in bands[mode]]) for index, width in enumerate(widths)},
        )
        for mode in range(len(modes))
    ]  # fmt: skip


def evaluate(
    model: SegModel,
    data: SegmentationData,
    *,
    modes: Sequence[bool | None] = (None,),
    dtype: torch.dtype | None = None,
    description: str = "evaluate",
    leave: bool = True,
    limit: int = 0,
) -> list[Scores]:
    """Scores of one model on whole images; see ``evaluate_images``. Each part of the model stays in its mode.

    Several processes share the images; each gets all scores.
    """
    with evaluating(model):
        found = evaluate_images(
            [model], data, modes=modes, dtype=dtype, description=description, leave=leave, limit=limit
        )
    device = next(model.parameters()).device
    counts = (torch.from_numpy(result.counts.sum(0)).to(device) for result in found)
    return [scores(distributed.total(part).cpu().numpy()) for part in counts]


def check_classes(path: str | Path, classes: Sequence[str], data: SegmentationData) -> None:
    """As many classes as the data has, in its order; other names are let through with a warning.

    Raises:
        UserError: another number of classes, or the same names in another order.
    """
    if len(classes) != len(data.classes):
        raise UserError(f"{path}: trained on {len(classes)} classes, but {data.name} has {len(data.classes)}")
    for number, (own, other) in enumerate(zip(classes, data.classes, strict=True)):
        if own != other:
            text = f"{path}: class {number} is {own!r}, in {data.name} {other!r}"
            if set(classes) == set(data.classes):
                raise UserError(f"{text}: the same names in another order")
            print(f"warning: {text}; classes are compared by number", file=sys.stderr)
            return


def result_json(scores: Scores, classes: Sequence[str]) -> dict:
    """Scores as JSON values; NaN (an absent class) becomes null."""
    values = dataclasses.asdict(scores)
    values["iou"] = dict(zip(classes, scores.iou, strict=True))
    return json.loads(json_text(values))


def per_image(results: Mapping[str, Evaluation]) -> Iterator[dict[str, Any]]:
    """A row for each image and result; mIoU there is over the classes present in that image."""
    for title, result in results.items():
        for index, (name, counts) in enumerate(zip(result.names, result.counts, strict=True)):
            row = {"image": name, "result": title, "miou": float(mean_iou(counts)),
                   "pixel_accuracy": float(pixel_accuracy(counts))}  # fmt: skip
            if len(result.boundary):
                row["boundary_iou"] = float(mean_iou(result.boundary[index]))
            yield {**row, **dict(zip(("correct", "true", "predicted"), counts.tolist(), strict=True))}


def write_per_image(path: str, results: Mapping[str, Evaluation]) -> None:
    """JSON lines with the counts, or CSV of the figures alone where the name ends so."""
    if path.lower().endswith(".csv"):
        rows = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in per_image(results)]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return write_output("--per-image", Path(path), text.getvalue())
    return write_output("--per-image", Path(path), "".join(json_text(row) + "\n" for row in per_image(results)))


def read_per_image(path: str, num_classes: int) -> dict[str, dict[str, np.ndarray]]:
    """The counts ``(3, C)`` by result and image in a file of ``write_per_image`` (JSON lines).

    Raises:
        UserError: not such a file, or of other classes.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    number = 0
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            number += 1
            row = json.loads(line)
            counts = np.array([row["correct"], row["true"], row["predicted"]])
            if counts.shape != (3, num_classes) or counts.dtype != np.int64:
                raise ValueError(f"expected counts of {num_classes} classes")
            of_result = found.setdefault(str(row["result"]), {})
            if row["image"] in of_result:
                raise ValueError(f"{row['image']!r} a second time")
            of_result[row["image"]] = counts
    except OSError as error:
        raise UserError(f"--compare: {path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--compare: {path}, line {number}: expected a line of --per-image FILE.jsonl ({error})"
        ) from error
    return found


def aligned(title: str, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The counts ``(N, 3, C)`` of these images in order; an error if the file is of others, or a name comes twice."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"--compare: expected images of different names, got {twice!r} twice")
    differing = sorted(set(counts) ^ set(names))
    if differing:
        raise UserError(f"--compare: {title}: expected the same images; {differing[0]!r} is not in both")
    return np.stack([counts[name] for name in names])


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


def class_numbers(names: str | None, classes: Sequence[str]) -> list[int]:
    """Numbers of the classes named in "a, b"; none where nothing is named."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(","))) if names else []
    for name in wanted:
        if name not in classes:
            raise UserError(f"--classes: expected some of {', '.join(classes)}, got {name!r}")
    return [classes.index(name) for name in wanted]


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
