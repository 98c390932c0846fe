"""Tables 3 and 4, figures 5 to 7 and their numbers, from finished runs: text, an HTML page and JSON values."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from statistics import fmean
from typing import Any

import numpy as np

from segmodel.common import html, pictures
from segmodel.common.device import autocast_dtype, choose_device
from segmodel.common.environment import environment
from segmodel.common.errors import printable
from segmodel.common.options import to_toml
from segmodel.common.tables import Table
from segmodel.data import SegmentationData
from segmodel.data.base import evenly_spaced
from segmodel.evaluation.evaluate import Evaluation
from segmodel.evaluation.metrics import bootstrap, mean_iou
from segmodel.experiments.ceilings import ceilings
from segmodel.experiments.models import whole_models
from segmodel.experiments.results import AS_IT_IS, DENSE, FROM_SCORES, UNTRAINED, WIDTHS, run_figures
from segmodel.experiments.runs import AblationOptions, Run
from segmodel.experiments.timing import Times, compare
from segmodel.model.config import PEERS
from segmodel.training.journal import Curve, loss_curve, read_metrics, score_curve
from segmodel.training.settings import SECTIONS

STEPS = (("unary", "context"), ("context", "patch"), ("patch", "guide"), *((peer, "guide") for peer in PEERS))
"""Pairs of variants to compare: what each part adds, and the whole against the peers."""
SHOWN = 8
"""Images drawn in the sheets, evenly spaced."""
WHOLE, CLOSE_UP, ZOOM = 256, 72, 3
"""Sides in pixels: of a whole image at most, of a close-up; the enlargement of a close-up."""
Part = Callable[[Evaluation], np.ndarray]
"""Counts ``(N, 3, C)`` of some of the pixels."""
ALL: Part = attrgetter("counts")
OUTLINE: Part = attrgetter("boundary")
Column = tuple[str, Part, Callable[[np.ndarray], np.ndarray]]
"""Head of a column, the counts it is made from, and the figure of them."""


def near(width: int) -> Part:
    """Counts within so many pixels of a true boundary."""
    return lambda figures: figures.trimap[:, WIDTHS.index(width)]


@dataclass(frozen=True)
class Result:
    """A row of Table 3: one variant, or one way to refine its scores, with its figures by seed."""

    name: str
    figures: dict[int, Evaluation]

    def counts(self, part: Part = ALL, seeds: Sequence[int] = ()) -> np.ndarray:
        """``(seeds, N, 3, C)``: counts over these seeds, or over all."""
        return np.stack([part(self.figures[seed]) for seed in seeds or self.figures])

    def percent(self, part: Part = ALL, classes: Sequence[int] | None = None) -> list[float]:
        """mIoU of each seed."""
        return (100 * mean_iou(self.counts(part).sum(1), classes=classes)).tolist()


def results_of(runs: Sequence[Run], figures: dict[str, dict[str, Evaluation]]) -> dict[str, Result]:
    """Rows of Table 3 by name: each variant, then the other ways to refine its scores."""
    rows: dict[str, Result] = {}
    for run in runs:
        for row, found in figures[run.name].items():
            name = run.variant if row == AS_IT_IS else f"{run.variant}, {row}"
            rows.setdefault(name, Result(name, {})).figures[run.seed] = found
    return rows


def compared(results: dict[str, Result]) -> list[tuple[Result, Result, list[int]]]:
    """The pairs of rows whose difference is of interest, with the seeds that both have."""
    wanted = [*STEPS, ("guide, guidance off", "guide")]
    wanted += [("patch", name) for name in results if name.startswith("patch, ")]
    wanted += [(f"patch, {DENSE}", f"patch, {name}") for name in (*UNTRAINED, FROM_SCORES)]
    wanted += [("guide", f"guide, {FROM_SCORES}")]
    pairs = [(results[first], results[second]) for first, second in wanted if {first, second} <= results.keys()]
    shared = [(one, other, sorted(one.figures.keys() & other.figures.keys())) for one, other in pairs]
    return [(one, other, seeds) for one, other, seeds in shared if seeds]


def table_3(results: dict[str, Result], classes: list[int]) -> Table:
    """mIoU of each row: mean over seeds, its interval, each seed."""
    seeds = sorted({seed for result in results.values() for seed in result.figures})
    rows = []
    for result in results.values():
        whole = bootstrap(result.counts(), draw_runs=True)
        of_seed = dict(zip(result.figures, result.percent(), strict=True))
        chosen = [fmean(result.percent(classes=classes))] if classes else []
        interval = "-" if math.isnan(whole.low) else f"{100 * whole.low:.1f} to {100 * whole.high:.1f}"
        rows.append([result.name, 100 * whole.value, interval, *chosen, *map(of_seed.get, seeds)])
    subset = ["of --classes"] if classes else []
    head = ["variant", "mIoU %", "95 % interval", *subset, *(f"seed {seed}" for seed in seeds)]
    return Table("Table 3: mIoU", head, rows, "Intervals: bootstrap over images and seeds.")


def gains_table(title: str, results: dict[str, Result], columns: Sequence[Column], note: str = "") -> Table:
    """Differences in points between the rows of ``compared``, paired over images and seeds."""
    rows = []
    for one, other, seeds in compared(results):
        row: list[Any] = [f"{one.name} -> {other.name}"]
        for _, part, figure in columns:
            gain = bootstrap(other.counts(part, seeds), minus=one.counts(part, seeds), draw_runs=True, figure=figure)
            row += [100 * gain.value, _interval(gain.low, gain.high)]
        rows.append([*row, len(seeds)])
    heads = zip((name for name, *_ in columns), ("95 % interval", "interval of it"), strict=False)
    return Table(title, ["step", *chain.from_iterable(heads), "seeds"], rows, note)


def _interval(low: float, high: float) -> str:
    """In percent, with a * where it leaves out 0; a dash where there is nothing to compare."""
    return "-" if math.isnan(low) else f"{100 * low:+.2f} to {100 * high:+.2f}{'' if low <= 0 <= high else ' *'}"


def boundary_table(results: dict[str, Result]) -> Table:
    """Boundary IoU, mIoU within each width of a boundary, and the time from scores to labels."""
    rows = []
    for result in results.values():
        means = [fmean(result.percent(part)) for part in (OUTLINE, *map(near, WIDTHS))]
        seconds = min(float(figures.seconds.mean()) for figures in result.figures.values())
        rows.append([result.name, *means, 1000 * seconds])
    head = ["variant", "Boundary IoU %", *(f"within {width}" for width in WIDTHS), "ms, scores to labels"]
    note = "Mean over seeds of Boundary IoU (2 % of the diagonal) and of mIoU within so many pixels of a true boundary."
    return Table("At boundaries (Fig. 6 in numbers)", head, rows, note)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds at the steps that all of them have."""
    values = [dict(curve) for curve in curves]
    return [(step, fmean(found[step] for found in values)) for step in sorted(set.intersection(*map(set, values)))]


def figure_7(runs: Sequence[Run]) -> tuple[list[str], Table]:
    """Curves of loss and validation, and how much each variant still rose at the end."""
    losses, scores, rows = {}, {}, []
    for variant in dict.fromkeys(run.variant for run in runs):
        read = [read_metrics(run.folder) for run in runs if run.variant == variant]
        losses[variant] = mean_curve([loss_curve(kinds["train"], 60)[0] for kinds in read])
        curve = scores[variant] = mean_curve([score_curve(kinds["val"]) for kinds in read])
        before = [score for step, score in curve if step <= 0.76 * curve[-1][0]]
        rise = curve[-1][1] - before[-1] if before else None
        rows.append([variant, losses[variant][-1][1] if losses[variant] else None, rise])
    blocks = [
        html.heading("Fig. 7: training"),
        html.curves(scores, x_label="step", y_label="validation mIoU, %", caption="Mean over seeds."),
        html.curves(losses, x_label="step", y_label="training loss", caption="Means over sixtieths of the training."),
    ]
    head = ["variant", "last training loss", "mIoU, rise over the last quarter"]
    note = "Validations during training may use fewer images than the last one."
    return blocks, Table("Still rising?", head, rows, note)


def figures_5_and_6(results: dict[str, Result], data: SegmentationData, shown: Sequence[int]) -> list[str]:
    """Whole images, and close-ups of where they have most boundary; predictions of the first seed of each row."""
    names = [name for name in results if "guidance off" not in name]
    whole, close = [], []
    for place, index in enumerate(shown):
        sample = data[index]
        labels = [sample.label, *(next(iter(results[name].figures.values())).labels[place] for name in names)]
        row = pictures.row(sample.image, labels, data.palette)
        window = pictures.busiest_window(sample.label, CLOSE_UP)
        step = -(-max(sample.label.shape) // WHOLE)  # every step-th pixel: a page of whole photographs would be huge
        whole.append([picture[::step, ::step] for picture in row])
        close.append([picture[window].repeat(ZOOM, 0).repeat(ZOOM, 1) for picture in row])
    order = f"From left to right: input, truth, {'; '.join(names)}."
    return [
        html.heading("Fig. 5: predictions"),
        html.picture(pictures.sheet(whole), order),
        html.heading("Fig. 6: at boundaries"),
        html.picture(pictures.sheet(close), f"The {CLOSE_UP} x {CLOSE_UP} pixels with most boundary. {order}"),
    ]


def table_4(times: Times, conditions: str) -> Table:
    """Inference time of each variant's whole model, and its ratio to the first."""
    rows = [[name, row["min"], row["p50"], row["ratio"]] for name, row in times.items()]
    note = f"{conditions}; the variants take turns in one process; the ratio is of the minima, to {next(iter(times))}."
    return Table("Table 4: inference time", ["variant", "min ms", "median ms", "ratio"], rows, note)


def ceilings_table(data: SegmentationData) -> Table:
    """The best scores that codes of each resolution can reach, see ``ceilings``."""
    rows = [[f"1/{cell}", 100 * row["blocks"], 100 * row["bilinear"]] for cell, row in ceilings(data).items()]
    note = ("mIoU on the validation labels, no training. Blocks: one label a cell, those that give the best mIoU; "
            "bilinear: scores a cell, fitted to the labels through bilinear up-sampling.")  # fmt: skip
    return Table("What codes of C x n x n can reach", ["resolution", "blocks", "bilinear"], rows, note)


@dataclass(frozen=True)
class Ablation:
    """What an ablation found; ``figures`` are blocks of a page, ``milliseconds`` the times of Table 4."""

    runs: Sequence[Run]
    notes: Sequence[str]
    data: SegmentationData
    tables: Sequence[Table]
    figures: Sequence[str]
    milliseconds: Times

    @property
    def facts(self) -> str:
        data, folder = self.runs[0].config.train.data, self.runs[0].folder.parent
        return f"{data}, val: {len(self.data)} images; {len(self.runs)} runs in {folder}"

    def text(self) -> str:
        """The tables for a terminal."""
        return "\n\n".join([*map(printable, (self.facts, *self.notes)), *(table.text() for table in self.tables)])

    def page(self) -> str:
        """report.html."""
        last = self.runs[-1]
        settings = to_toml({title: getattr(last.config, title) for title in SECTIONS})
        notes = [html.paragraph(f"Unlike the others: {note}") for note in self.notes]
        blocks = [html.paragraph(self.facts), *notes, *(table.html() for table in self.tables), *self.figures]
        blocks += [html.heading(f"Configuration of {last.name}"), html.configuration(settings)]
        blocks += [html.heading("Versions"), html.configuration(environment())]
        return html.page(f"Ablation on {self.data.name}", blocks)

    def values(self) -> dict[str, Any]:
        """The content of results.json."""
        machine = environment()
        return {
            "data": self.runs[0].config.train.data, "images": len(self.data), "classes": list(self.data.classes),
            "notes": list(self.notes), "runs": {run.name: dataclasses.asdict(run.config) for run in self.runs},
            "tables": {table.title: table.records() for table in self.tables}, "milliseconds": self.milliseconds,
            "environment": machine, "versions": machine["versions"],
        }  # fmt: skip


def evaluate_runs(
    runs: Sequence[Run], notes: Sequence[str], data: SegmentationData, *, classes: list[int], options: AblationOptions
) -> Ablation:
    """All tables and figures; runs whose figures are kept in DIR/figures are not evaluated again.

    Args:
        notes: how runs differ from the first. classes: numbers of those that get a mean of their own, or none.
    """
    train = runs[0].config.train
    device = choose_device(train.device)
    dtype = autocast_dtype(train.precision, device)
    shown = evenly_spaced(len(data), SHOWN)
    figures = {
        run.name: run_figures(run.folder, run.folder.parents[1] / "figures" / f"{run.name}.npz", data, shown=shown,
                              device=device, dtype=dtype, dense=options.dense)
        for run in runs
    }  # fmt: skip
    results = results_of(runs, figures)
    models = {run.variant: run.config.model for run in runs}
    calls = whole_models(models, len(data.classes), options.time_size, device=device, dtype=dtype)
    times = compare(calls, options.time_seconds)
    curves, rising = figure_7(runs)
    gains: list[Column] = [("mIoU, points", ALL, mean_iou)]
    gains += [("of --classes", ALL, partial(mean_iou, classes=classes))] if classes else []
    boundary: list[Column] = [("Boundary IoU, points", OUTLINE, mean_iou), ("mIoU within 5 pixels", near(5), mean_iou)]
    note = "Paired bootstrap over images and seeds; with few seeds the spread between trainings is known roughly only."
    size = "One image of {} x {}".format(*options.time_size)
    tables = [
        table_3(results, classes),
        gains_table("What each part adds", results, gains, note),
        boundary_table(results),
        gains_table("What each part adds at boundaries", results, boundary),
        table_4(times, f"{size}, {device}, {dtype or 'torch.float32'}"),
        rising,
        *([ceilings_table(data)] if options.ceilings else []),
    ]
    return Ablation(runs, notes, data, tables, [*curves, *figures_5_and_6(results, data, shown)], times)
