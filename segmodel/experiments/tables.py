"""Tables of an ablation, from what its runs predict; see ``ablation`` for what becomes of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from statistics import fmean
from typing import Any

import numpy as np

from segmodel.common.tables import Table
from segmodel.data import SegmentationData
from segmodel.evaluation.evaluate import Evaluation
from segmodel.evaluation.metrics import Interval, bootstrap, class_iou, mean_iou
from segmodel.experiments.ceilings import ceilings
from segmodel.experiments.results import AS_IT_IS, DENSE, FROM_SCORES, UNTRAINED, WIDTHS
from segmodel.experiments.runs import Run
from segmodel.experiments.timing import Times
from segmodel.experiments.variants import Variant, reference

BOOTSTRAP = "Intervals: bootstrap over images and seeds, paired where two rows are compared; * leaves out 0."
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
    """A row of the tables: one variant, or another guidance on its scores, with its figures by seed."""

    variant: Variant
    guidance: str
    figures: dict[int, Evaluation]

    @property
    def name(self) -> str:
        return self.variant.name if self.plain else f"{self.variant.name}, {self.guidance}"

    @property
    def plain(self) -> bool:
        """Whether it is the model as it is."""
        return self.guidance == AS_IT_IS

    def counts(self, part: Part = ALL, seeds: Sequence[int] = ()) -> np.ndarray:
        """``(seeds, N, 3, C)``: counts over these seeds, or over all."""
        return np.stack([part(self.figures[seed]) for seed in seeds or self.figures])

    def percent(self, part: Part = ALL, classes: Sequence[int] | None = None) -> list[float]:
        """mIoU of each seed."""
        return (100 * mean_iou(self.counts(part).sum(1), classes=classes)).tolist()

    def milliseconds(self) -> float:
        """From scores to labels, an image."""
        return 1000 * min(float(figures.seconds.mean()) for figures in self.figures.values())


@dataclass(frozen=True)
class Pair:
    """Two rows whose difference is of interest, with the seeds that both have: what ``other`` gains over ``one``."""

    one: Result
    other: Result

    @property
    def seeds(self) -> list[int]:
        return sorted(self.one.figures.keys() & self.other.figures.keys())

    def gain(self, part: Part = ALL, figure: Callable[[np.ndarray], np.ndarray] = mean_iou) -> Interval:
        one, other = (result.counts(part, self.seeds) for result in (self.one, self.other))
        return bootstrap(other, minus=one, draw_runs=True, figure=figure)


def results_of(runs: Sequence[Run], figures: dict[str, dict[str, Evaluation]]) -> list[Result]:
    """The rows: each variant, then other guidance on its scores."""
    rows: dict[tuple[Variant, str], Result] = {}
    for run in sorted(runs, key=lambda run: (run.variant.order, run.seed)):
        for guidance, found in figures[run.name].items():
            row = rows.setdefault((run.variant, guidance), Result(run.variant, guidance, {}))
            row.figures[run.seed] = found
    return list(rows.values())


def part_pairs(results: Sequence[Result]) -> dict[str, Pair]:
    """By the name of a variant's row: itself and the row over which its gain is shown, see ``variants.reference``."""
    plain = {result.variant: result for result in results if result.plain}
    pairs = {}
    for variant, result in plain.items():
        one = reference(variant, list(plain))
        if one and (pair := Pair(plain[one], result)).seeds:
            pairs[result.name] = pair
    return pairs


def other_pairs(results: Sequence[Result]) -> list[Pair]:
    """Further pairs: the full model over the plain classifier, other guidance over a model's own and each other."""
    rows = {result.name: result for result in results}
    wanted = [("unary", "guide")]
    wanted += [(result.variant.name, result.name) for result in results if not result.plain]
    wanted += [(f"patch, {DENSE}", name) for name in (*(f"patch, {row}" for row in (*UNTRAINED, FROM_SCORES)), "guide")]
    pairs = [Pair(rows[one], rows[other]) for one, other in wanted if {one, other} <= rows.keys()]
    return [pair for pair in pairs if pair.seeds]


def parts_table(results: Sequence[Result], milliseconds: Mapping[Variant, float | None], classes: list[int]) -> Table:
    """The table to read first: of each variant its figures, what it gains over the part before it, and its time."""
    rows, pairs = [], part_pairs(results)
    for result in filter(attrgetter("plain"), results):
        pair = pairs.get(result.name)
        chosen = [fmean(result.percent(classes=classes))] if classes else []
        gained = [100 * gain.value, _interval(gain), pair.one.name] if pair and (gain := pair.gain()) else [None] * 3
        means = [fmean(result.percent(part)) for part in (OUTLINE, near(5))]
        time = milliseconds[result.variant]
        rows.append([result.name, fmean(result.percent()), *chosen, *gained, *means, time, len(result.figures)])
    head = ["variant", "mIoU %", *["of --classes"] * bool(classes), "gain", "95 % interval", "over", "Boundary IoU %",
            "within 5 px", "ms an image", "seeds"]  # fmt: skip
    whole = [pair for pair in other_pairs(results) if (pair.one.name, pair.other.name) == ("unary", "guide")]
    words = [f" guide over unary: {100 * gain.value:+.2f} ({_interval(gain)})." for gain in (p.gain() for p in whole)]
    note = f"Means over seeds; within 5 px: mIoU near a true boundary. {BOOTSTRAP}{''.join(words)}"
    return Table("Table 3: what each part adds", head, rows, note)


def figures_table(results: Sequence[Result]) -> Table:
    """All rows: mIoU with its own interval, of each seed and near boundaries, Boundary IoU, and time."""
    seeds = sorted({seed for result in results for seed in result.figures})
    rows = []
    for result in results:
        whole = bootstrap(result.counts(), draw_runs=True)
        of_seed = dict(zip(result.figures, result.percent(), strict=True))
        interval = "-" if math.isnan(whole.low) else f"{100 * whole.low:.1f} to {100 * whole.high:.1f}"
        means = [fmean(result.percent(part)) for part in (OUTLINE, *map(near, WIDTHS))]
        rows.append([result.name, 100 * whole.value, interval, *map(of_seed.get, seeds), *means, result.milliseconds()])
    head = ["variant", "mIoU %", "95 % interval", *(f"seed {seed}" for seed in seeds)]
    head += ["Boundary IoU %", *(f"within {width} px" for width in WIDTHS), "ms, scores to labels"]
    note = f"{BOOTSTRAP} Boundary IoU: 2 % of the diagonal."
    return Table("Each seed, other guidance on the same scores, and boundaries (Fig. 6 in numbers)", head, rows, note)


def gains_table(results: Sequence[Result], classes: list[int]) -> Table:
    """Differences in points between the rows of all pairs."""
    columns: list[Column] = [("mIoU", ALL, mean_iou)]
    columns += [("of --classes", ALL, partial(mean_iou, classes=classes))] if classes else []
    columns += [("Boundary IoU", OUTLINE, mean_iou), ("within 5 px", near(5), mean_iou)]
    rows = []
    pairs = [*part_pairs(results).values(), *other_pairs(results)]
    for pair in {(pair.one.name, pair.other.name): pair for pair in pairs}.values():
        row: list[Any] = [f"{pair.one.name} -> {pair.other.name}"]
        for _, part, figure in columns:
            gain = pair.gain(part, figure)
            row += [100 * gain.value, _interval(gain)]
        rows.append([*row, len(pair.seeds)])
    heads = chain.from_iterable((name, f"interval, {name}") for name, *_ in columns)
    note = f"In points. {BOOTSTRAP} With few seeds the spread between trainings is known roughly only."
    return Table("Paired differences", ["step", *heads, "seeds"], rows, note)


def class_table(results: Sequence[Result], classes: Sequence[str]) -> Table:
    """IoU of each class and variant, mean over seeds."""
    plain = [result for result in results if result.plain]
    columns = [100 * class_iou(result.counts().sum(1)).mean(0) for result in plain]
    rows = [[name, *(float(column[number]) for column in columns)] for number, name in enumerate(classes)]
    return Table("Each class: IoU, %", ["class", *(result.name for result in plain)], rows)


def _interval(gain: Interval) -> str:
    """In percent, with a * where it leaves out 0; a dash where there is nothing to compare."""
    if math.isnan(gain.low):
        return "-"
    return f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}{'' if gain.low <= 0 <= gain.high else ' *'}"


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
