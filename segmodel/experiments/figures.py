"""Figures of an ablation: the gains, images where parts differ most, and figures 5 to 7; blocks of an HTML page."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from operator import attrgetter
from statistics import fmean

import numpy as np
import torch

from segmodel.common import html, pictures
from segmodel.common.tables import Table
from segmodel.data import SegmentationData
from segmodel.evaluation.evaluate import Evaluation
from segmodel.evaluation.metrics import class_iou, mean_iou
from segmodel.experiments.results import predicted_labels
from segmodel.experiments.runs import Run
from segmodel.experiments.tables import Pair, Result, part_pairs
from segmodel.training.journal import Curve, loss_curve, read_metrics, score_curve

UP, DOWN = 2, 1
"""Images that are shown of each pair: those that gain most, and those that lose most."""
WHOLE, CLOSE_UP, ZOOM = 256, 72, 3
"""Sides in pixels: of a whole image at most, of a close-up; the enlargement of a close-up."""


def plot(results: Sequence[Result]) -> str:
    """The table to read first, drawn."""
    rows, pairs = [], part_pairs(results)
    for result in filter(attrgetter("plain"), results):
        seeds, whiskers, over = result.percent(), None, ""
        if pair := pairs.get(result.name):
            gain, mean = pair.gain(), fmean(seeds)
            start = mean - 100 * gain.value
            whiskers, over = (start + 100 * gain.low, start + 100 * gain.high, start), f"over {pair.one.name}"
        rows.append(html.Dots(result.name, fmean(seeds), seeds, whiskers, over))
    caption = (
        "mIoU, %: mean (large dot) and seeds (small dots). Bar: 95 % interval of the gain, from the mIoU of the row "
        "that it is over (the tick); green or red where it leaves out the tick, grey where not."
    )
    return html.dots(rows, caption)


def image_iou(figures: Evaluation) -> np.ndarray:
    """mIoU ``(N,)`` of each image over the classes that its truth has."""
    return mean_iou(np.where(figures.counts[:, 1:2] > 0, figures.counts, 0))


def most_changed(one: Evaluation, other: Evaluation) -> list[int]:
    """The images whose mIoU rises most from one to the other, then those where it falls most."""
    change = image_iou(other) - image_iou(one)
    order = np.argsort(-change, kind="stable").tolist()
    up, down = (index for index in order if change[index] > 0), (index for index in order[::-1] if change[index] < 0)
    return [*islice(up, UP), *islice(down, DOWN)]


def words_of_change(pair: Pair, seed: int, index: int, classes: Sequence[str]) -> str:
    """A caption: the image, how its mIoU changes from one row to the other, and the classes that change most."""
    one, other = pair.one.figures[seed], pair.other.figures[seed]
    before, after = (100 * class_iou(figures.counts[index]) for figures in (one, other))
    change = np.where(one.counts[index, 1] > 0, after - before, 0)
    order = [number for number in np.argsort(-abs(change), kind="stable")[:3] if abs(change[number]) >= 1]
    parts = [f"{classes[number]} {before[number]:.0f} to {after[number]:.0f}" for number in order]
    means = " to ".join(f"{100 * image_iou(figures)[index]:.1f}" for figures in (one, other))
    return f"{one.names[index]}: mIoU {'; '.join(filter(None, (means, ', '.join(parts))))}"


def differences(
    runs: Sequence[Run], results: Sequence[Result], data: SegmentationData, *, device: torch.device,
    dtype: torch.dtype | None,
) -> list[str]:  # fmt: skip
    """Of each pair of parts the images of the first seed that change most: input, truth, both predictions, change."""
    folders = {(run.variant, run.seed): run.folder for run in runs}
    pairs = list(part_pairs(results).values())
    chosen = [most_changed(*(row.figures[pair.seeds[0]] for row in (pair.one, pair.other))) for pair in pairs]
    needed: dict[tuple, set[int]] = defaultdict(set)
    for pair, indices in zip(pairs, chosen, strict=True):
        for row in (pair.one, pair.other):
            needed[row.variant, pair.seeds[0]].update(indices)
    labels = {key: predicted_labels(folders[key], data, sorted(indices), device=device, dtype=dtype)
              for key, indices in needed.items()}  # fmt: skip
    blocks, seen = [], set[int]()
    for pair, indices in zip(pairs, chosen, strict=True):
        seed = pair.seeds[0]
        blocks.append(html.heading(f"{pair.one.name} -> {pair.other.name}", level=3))
        for index in indices:
            before, after = (labels[row.variant, seed][index] for row in (pair.one, pair.other))
            sheet = change_sheet(data, index, before, after, headings=(pair.one.name, pair.other.name))
            seen.update(np.unique(data[index].label).tolist(), np.unique(before).tolist(), np.unique(after).tolist())
            blocks.append(html.picture(sheet, words_of_change(pair, seed, index, data.classes)))
    if not blocks:
        return []
    present = [number for number in range(len(data.classes)) if number in seen]
    legend = html.swatches([data.classes[number] for number in present], data.palette[present])
    words = (
        "Validation images whose mIoU rises most, and the one where it falls most, of the first seed. Last column: "
        "green is right now, red was right before, orange is wrong in both, in different ways."
    )
    return [html.heading("Where parts differ most"), html.paragraph(words), legend, *blocks]


def change_sheet(
    data: SegmentationData, index: int, before: np.ndarray, after: np.ndarray, *, headings: tuple[str, str]
) -> np.ndarray:
    """One row: input, truth, both predictions, and what changes between them, each at most ``WHOLE`` pixels a side."""
    sample = data[index]
    maps = [pictures.reduced(label, WHOLE, labels=True) for label in (sample.label, before, after)]
    image = pictures.reduced(sample.image, WHOLE)
    row = [*pictures.row(image, maps, data.palette), pictures.changes(image, *maps)]
    return pictures.sheet([row], headings=("input", "truth", *headings, "change"))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds at the steps that all of them have."""
    values = [dict(curve) for curve in curves]
    return [(step, fmean(found[step] for found in values)) for step in sorted(set.intersection(*map(set, values)))]


def figure_7(runs: Sequence[Run]) -> tuple[list[str], Table]:
    """Curves of loss and validation, and how much each variant still rose at the end."""
    losses, scores, rows = {}, {}, []
    for variant in dict.fromkeys(run.variant.name for run in runs):
        read = [read_metrics(run.folder) for run in runs if run.variant.name == variant]
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


def figures_5_and_6(results: Sequence[Result], data: SegmentationData, shown: Sequence[int]) -> list[str]:
    """Whole images, and close-ups of where they have most boundary; predictions of the first seed of each row."""
    drawn = {result.name: result for result in results if result.guidance != "guidance off"}
    whole, close = [], []
    for place, index in enumerate(shown):
        sample = data[index]
        labels = [sample.label, *(next(iter(result.figures.values())).labels[place] for result in drawn.values())]
        row = pictures.row(sample.image, labels, data.palette)
        window = pictures.busiest_window(sample.label, CLOSE_UP)
        step = -(-max(sample.label.shape) // WHOLE)  # every step-th pixel: a page of whole photographs would be huge
        whole.append([picture[::step, ::step] for picture in row])
        close.append([picture[window].repeat(ZOOM, 0).repeat(ZOOM, 1) for picture in row])
    order = f"From left to right: input, truth, {'; '.join(drawn)}."
    return [
        html.heading("Fig. 5: predictions"),
        html.picture(pictures.sheet(whole), order),
        html.heading("Fig. 6: at boundaries"),
        html.picture(pictures.sheet(close), f"The {CLOSE_UP} x {CLOSE_UP} pixels with most boundary. {order}"),
    ]
