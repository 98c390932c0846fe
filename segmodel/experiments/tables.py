"""Tables 3 and 4, figures 5 to 7 and their numbers, from finished runs: report.html, results.json and text."""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common import html, pictures
from segmodel.common.device import autocast_dtype, choose_device
from segmodel.common.environment import environment, versions
from segmodel.common.files import json_text, write_atomically
from segmodel.common.options import to_toml
from segmodel.common.tables import Table
from segmodel.data import SegmentationData, open_data
from segmodel.data.base import evenly_spaced
from segmodel.evaluation.evaluate import Evaluation, class_numbers
from segmodel.evaluation.metrics import bootstrap, mean_iou
from segmodel.experiments.ceilings import ceilings
from segmodel.experiments.models import time_models
from segmodel.experiments.results import AS_IT_IS, DENSE, UNTRAINED, WIDTHS, run_figures
from segmodel.experiments.runs import Run
from segmodel.training.settings import SECTIONS

STEPS = (("unary", "context"), ("context", "patch"), ("patch", "guide"), ("aspp", "guide"), ("ppm", "guide"))
"""Whose difference is of interest: what each part adds, and the whole against the peers."""
SHOWN = 8
"""Images drawn in the sheets, evenly spaced."""
WHOLE, CLOSE_UP, ZOOM = 256, 72, 3
"""Sides in pixels: of a whole image at most, of a close-up, and how often that is enlarged."""


@dataclass(frozen=True)
class Result:
    """A row of Table 3: one variant, or one way to refine it, over its seeds (in order)."""

    name: str
    seeds: tuple[int, ...]
    figures: tuple[Evaluation, ...]

    def counts(self, part: str = "counts", seeds: Sequence[int] | None = None) -> np.ndarray:
        """``(seeds, N, ...)``: a part of the figures, of all seeds or some."""
        chosen = self.seeds if seeds is None else seeds
        return np.stack([getattr(self.figures[self.seeds.index(seed)], part) for seed in chosen])


def results_of(runs: Sequence[Run], figures: dict[str, dict[str, Evaluation]]) -> dict[str, Result]:
    """Rows of Table 3 by name: each variant, then its other refinements, which have all its seeds."""
    rows: dict[str, Result] = {}
    for variant in dict.fromkeys(run.variant for run in runs):
        mine = [run for run in runs if run.variant == variant]
        for row in figures[mine[0].name]:
            kept = [run for run in mine if row in figures[run.name]]
            name = variant if row == AS_IT_IS else f"{variant}, {row}"
            seeds = tuple(run.seed for run in kept)
            rows[name] = Result(name, seeds, tuple(figures[run.name][row] for run in kept))
    return rows


def compared(results: dict[str, Result]) -> list[tuple[Result, Result, tuple[int, ...]]]:
    """The differences of interest between what is there, with the seeds that both sides have."""
    wanted = [*STEPS, ("guide, guidance off", "guide")]
    wanted += [("patch", name) for name in results if name.startswith("patch, ")]
    wanted += [(f"patch, {DENSE}", f"patch, {name}") for name in UNTRAINED]
    pairs = []
    for first, second in wanted:
        if first in results and second in results:
            one, other = results[first], results[second]
            common = tuple(seed for seed in one.seeds if seed in other.seeds)
            if common:
                pairs.append((one, other, common))
    return pairs


def table_3(results: dict[str, Result], classes: list[int]) -> Table:
    """mIoU of each row: mean over seeds, its interval, each seed."""
    seeds = sorted({seed for result in results.values() for seed in result.seeds})
    subset = ["of --classes"] if classes else []
    rows = []
    for result in results.values():
        whole = bootstrap(result.counts(), draw_runs=True)
        of_seed = dict(zip(result.seeds, 100 * mean_iou(result.counts().sum(1)), strict=True))
        chosen = [100 * float(mean_iou(result.counts().sum(1), classes=classes).mean())] if classes else []
        interval = "-" if math.isnan(whole.low) else f"{100 * whole.low:.1f} to {100 * whole.high:.1f}"
        rows.append([result.name, 100 * whole.value, interval, *chosen]
                    + [of_seed.get(seed) for seed in seeds])  # fmt: skip
    head = ["variant", "mIoU %", "95 % interval", *subset, *(f"seed {seed}" for seed in seeds)]
    return Table("Table 3: mIoU", head, rows, "Intervals: bootstrap over images and seeds.")


def gains_table(results: dict[str, Result], classes: list[int]) -> Table:
    """Differences in mIoU, in points, paired over images and seeds."""
    rows = []
    for one, other, seeds in compared(results):
        first, second = one.counts(seeds=seeds), other.counts(seeds=seeds)
        gain = bootstrap(second, minus=first, draw_runs=True)
        row = [f"{one.name} -> {other.name}", 100 * gain.value, _interval(gain.low, gain.high)]
        if classes:
            part = bootstrap(second, minus=first, draw_runs=True, figure=lambda c: mean_iou(c, classes=classes))
            row += [100 * part.value, _interval(part.low, part.high)]
        rows.append([*row, len(seeds)])
    more = ["of --classes", "interval of it"] if classes else []
    head = ["step", "mIoU, points", "95 % interval", *more, "seeds"]
    note = "Paired bootstrap over images and seeds; with few seeds the spread between trainings is known roughly only."
    return Table("What each part adds", head, rows, note)


def _interval(low: float, high: float) -> str:
    """A * where it leaves out 0; a dash where there is nothing to compare."""
    return "-" if math.isnan(low) else f"{100 * low:+.2f} to {100 * high:+.2f}{'' if low <= 0 <= high else ' *'}"


def boundary_table(results: dict[str, Result]) -> Table:
    """Boundary IoU, mIoU within each width of a boundary, and the time from scores to labels."""
    rows = []
    for result in results.values():
        trimaps = mean_iou(result.counts("trimap").sum(1)).mean(0)
        boundary = float(mean_iou(result.counts("boundary").sum(1)).mean())
        seconds = np.min([figures.seconds.mean() for figures in result.figures])
        rows.append([result.name, 100 * boundary, *(100 * trimaps).tolist(), 1000 * float(seconds)])
    head = ["variant", "Boundary IoU %", *(f"within {width}" for width in WIDTHS), "ms, scores to labels"]
    note = "Mean over seeds of Boundary IoU (2 % of the diagonal) and of mIoU within so many pixels of a true boundary."
    return Table("At boundaries (Fig. 6 in numbers)", head, rows, note)


def boundary_gains(results: dict[str, Result], width: int = 5) -> Table:
    """The same differences as in ``gains_table`` at boundaries."""
    place = WIDTHS.index(width)
    rows = []
    for one, other, seeds in compared(results):
        outline = bootstrap(other.counts("boundary", seeds), minus=one.counts("boundary", seeds), draw_runs=True)
        first, second = (result.counts("trimap", seeds)[:, :, place] for result in (one, other))
        near = bootstrap(second, minus=first, draw_runs=True)
        rows.append([f"{one.name} -> {other.name}", 100 * outline.value, _interval(outline.low, outline.high),
                     100 * near.value, _interval(near.low, near.high)])  # fmt: skip
    head = ["step", "Boundary IoU, points", "95 % interval", f"mIoU within {width} pixels", "interval of it"]
    return Table("What each part adds at boundaries", head, rows)


def read_metrics(folder: Path) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Training loss, as means over sixtieths of the training, and validation mIoU (%) over steps."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    chunk = max(1, len(losses) // 60)
    parts = [losses[start : start + chunk] for start in range(0, len(losses), chunk)]
    smooth = [(float(part[-1][0]), float(np.mean([loss for _, loss in part]))) for part in parts]
    scores = [(float(line["step"]), 100 * line["miou"]) for line in lines if line["kind"] == "val" and line["miou"]]
    return smooth, scores


def mean_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean over seeds where all have a point."""
    shared = set.intersection(*(set(dict(curve)) for curve in curves))
    return [(x, float(np.mean([dict(curve)[x] for curve in curves]))) for x in sorted(shared)]


def figure_7(runs: Sequence[Run]) -> tuple[list[str], Table]:
    """Curves of loss and validation, and how much each variant still rose at the end."""
    losses, scores, rows = {}, {}, []
    for variant in dict.fromkeys(run.variant for run in runs):
        read = [read_metrics(run.folder) for run in runs if run.variant == variant]
        losses[variant], scores[variant] = (mean_curve([one[part] for one in read]) for part in (0, 1))
        curve = scores[variant]
        before = [score for step, score in curve if step <= 0.76 * curve[-1][0]] if curve else []
        rows.append([variant, losses[variant][-1][1] if losses[variant] else None,
                     curve[-1][1] - before[-1] if before else None])  # fmt: skip
    blocks = [
        html.heading("Fig. 7: training"),
        html.curves(scores, x_label="step", y_label="validation mIoU, %", caption="Mean over seeds."),
        html.curves(losses, x_label="step", y_label="training loss", caption="Means over sixtieths of the training."),
    ]
    head = ["variant", "last training loss", "mIoU, rise over the last quarter"]
    return blocks, Table("Still rising?", head, rows, "Validations during training may use fewer images than the last.")


def figure_5(results: dict[str, Result], data: SegmentationData, shown: list[int]) -> list[str]:
    """Whole images and close-ups of the busiest boundary, the first seed of each row."""
    names = [name for name in results if "guidance off" not in name]
    sheets: tuple[list, list] = ([], [])
    for place, index in enumerate(shown):
        sample = data[index]
        maps = [sample.label] + [results[name].figures[0].labels[place] for name in names]
        drawn = [sample.image] + [pictures.colourise(label, data.palette) for label in maps]
        window = busiest_window(sample.label, CLOSE_UP)
        step = -(-max(sample.label.shape) // WHOLE)  # every step-th pixel: a page of whole photographs would be huge
        sheets[0].append([picture[::step, ::step] for picture in drawn])
        sheets[1].append([picture[window].repeat(ZOOM, 0).repeat(ZOOM, 1) for picture in drawn])
    order = "From left to right: input, truth, " + "; ".join(names) + "."
    return [
        html.heading("Fig. 5: predictions"),
        html.picture(pictures.sheet(sheets[0]), order),
        html.heading("Fig. 6: at boundaries"),
        html.picture(pictures.sheet(sheets[1]), f"The {CLOSE_UP} x {CLOSE_UP} pixels with most boundary. {order}"),
    ]


def busiest_window(label: np.ndarray, side: int) -> tuple[slice, slice]:
    """The square (less at a small image) with most pixels whose right or lower neighbour has another label."""
    edge = np.zeros(label.shape, np.int64)
    edge[:, :-1] += label[:, 1:] != label[:, :-1]
    edge[:-1] += label[1:] != label[:-1]
    height, width = (min(side, length) for length in label.shape)
    sums = np.pad(edge.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return np.s_[y : y + height, x : x + width]


def table_4(runs: Sequence[Run], data: SegmentationData, options: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    """Inference time of each variant's whole model, its ratio to Unary."""
    device = choose_device(runs[0].config.train.device)
    dtype = autocast_dtype(runs[0].config.train.precision, device)
    configs = {run.variant: run.config.model for run in runs}
    height, width = options.time_size
    times = time_models(configs, len(data.classes), options.time_size, seconds=options.time_seconds, device=device,
                        dtype=dtype)  # fmt: skip
    rows = [[name, row["min"], row["p50"], row["ratio"]] for name, row in times.items()]
    note = (f"One image of {width} x {height}, {device}, {dtype or 'torch.float32'}; the variants take turns in one "
            f"process; the ratio is of the minima, to {next(iter(times))}.")  # fmt: skip
    return Table("Table 4: inference time", ["variant", "min ms", "median ms", "ratio"], rows, note), times


def ceilings_table(data: SegmentationData) -> Table:
    """See ``ceilings``."""
    rows = [[f"1/{cell}", 100 * row["blocks"], 100 * row["bilinear"]] for cell, row in ceilings(data).items()]
    note = ("mIoU on the validation labels, no training. Blocks: one label a cell, those that give the best mIoU; "
            "bilinear: scores a cell, fitted to the labels through bilinear up-sampling.")  # fmt: skip
    return Table("What codes of C x n x n can reach", ["resolution", "blocks", "bilinear"], rows, note)


def write_report(runs: Sequence[Run], notes: Sequence[str], options: argparse.Namespace) -> None:
    """Evaluates what is not yet evaluated, prints the tables, writes report.html and results.json."""
    output, train = options.output, runs[0].config.train
    data = open_data(train.data, split="val")
    classes = class_numbers(options.classes, data.classes)
    shown = evenly_spaced(len(data), SHOWN)
    device = choose_device(train.device)
    dtype = autocast_dtype(train.precision, device)
    figures = {
        run.name: run_figures(run.folder, output / "figures" / f"{run.name}.npz", data, shown=shown, device=device,
                              dtype=dtype, dense=not options.no_dense)
        for run in runs
    }  # fmt: skip
    results = results_of(runs, figures)
    curves, rising = figure_7(runs)
    times, milliseconds = table_4(runs, data, options)
    tables = [table_3(results, classes), gains_table(results, classes), boundary_table(results),
              boundary_gains(results), times, rising]  # fmt: skip
    if options.ceilings:
        tables.append(ceilings_table(data))
    facts = f"{train.data}, val: {len(data)} images; {len(runs)} runs in {output / 'runs'}"
    blocks = [html.paragraph(facts), *(html.paragraph(f"Unlike the others: {note}") for note in notes)]
    blocks += [table.html() for table in tables] + curves + figure_5(results, data, shown)
    configuration = to_toml({title: getattr(runs[-1].config, title) for title in SECTIONS})
    blocks += [html.heading(f"Configuration of {runs[-1].name}"), html.configuration(configuration)]
    blocks += [html.heading("Versions"), html.configuration(environment() | versions())]
    print("\n\n".join([facts, *notes, *(table.text() for table in tables)]))
    write_atomically(output / "report.html", html.page(f"Ablation on {data.name}", blocks))
    content = {
        "data": train.data, "images": len(data), "classes": list(data.classes), "notes": list(notes),
        "runs": {run.name: dataclasses.asdict(run.config) for run in runs},
        "tables": {table.title: [dict(zip(table.head, row, strict=True)) for row in table.rows] for table in tables},
        "milliseconds": milliseconds, "environment": environment(), "versions": versions(),
    }  # fmt: skip
    write_atomically(output / "results.json", json_text(content, indent=1) + "\n")
    print(f"\nreport: {output / 'report.html'}\nfigures: {output / 'results.json'}")
