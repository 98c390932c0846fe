"""Segmentation figures, exact over a whole set, and how far to trust them (bootstrap over images).

Every figure follows from three numbers for each class, kept for each image as int64 *counts* ``(3, C)``: its correctly
predicted pixels, its true pixels, its predicted pixels. Counts add up over images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmodel.common.labels import IGNORE
from segmodel.common.tables import Table


@dataclass(frozen=True)
class Scores:
    """Figures in 0..1; NaN where a class is absent.

    ``iou``: of each class, TP / (TP + FP + FN). ``miou``: their mean over the classes present in truth or prediction.
    ``pixel_accuracy``; ``mean_accuracy``: mean recall over the classes present in the truth. ``ade20k_score``: mean of
    mIoU and pixel accuracy.
    """

    iou: tuple[float, ...]
    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    ade20k_score: float


def class_counts(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts ``(3, C)`` of arrays of class numbers of one shape; where ``label`` is 255, a pixel is not counted.

    Raises:
        ValueError: another shape, or a number that is no class (in a prediction: where the label is not ignored).
    """
    if prediction.shape != label.shape:
        raise ValueError(f"prediction: expected the label's shape {label.shape}, got {prediction.shape}")
    valid = label != IGNORE
    predicted, true = prediction[valid], label[valid]
    for name, values in (("prediction", predicted), ("label", true)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"{name}: expected classes 0..{num_classes - 1}, got {values.min()}..{values.max()}")
    return histograms(true[predicted == true], true, predicted, num_classes=num_classes)


def confusion_matrix(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each true class (rows) predicted as each class, int64 ``(C, C)``; arguments as of ``class_counts``."""
    valid = label != IGNORE
    pairs = num_classes * label[valid].astype(np.int64) + prediction[valid]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def histograms(*pixels: np.ndarray, num_classes: int) -> np.ndarray:
    """How many of the pixels have each class: int64 ``(K, C)`` of K arrays ``(n,)`` of class numbers."""
    return np.stack([np.bincount(part, minlength=num_classes) for part in pixels])


def scores(counts: np.ndarray) -> Scores:
    """Figures of counts ``(3, C)``."""
    hits, truth, _ = counts.astype(np.float64)
    iou = class_iou(counts)
    miou, accuracy = float(_mean(iou)), float(pixel_accuracy(counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = float(_mean(hits / truth))
    return Scores(tuple(iou.tolist()), miou, accuracy, recall, (miou + accuracy) / 2)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """IoU ``(..., C)`` of counts ``(..., 3, C)``; NaN where a class is absent from truth and prediction."""
    hits, truth, predicted = np.moveaxis(counts.astype(np.float64), -2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / (truth + predicted - hits)


def mean_iou(counts: np.ndarray, *, classes: Sequence[int] | None = None) -> np.ndarray:
    """mIoU ``(...)`` of counts ``(..., 3, C)``, over the classes present, or over those of ``classes`` present."""
    iou = class_iou(counts)
    return _mean(iou if classes is None else iou[..., list(classes)])


def pixel_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of pixels that are right, ``(...)``, of counts ``(..., 3, C)``."""
    with np.errstate(invalid="ignore"):
        return counts[..., 0, :].sum(-1) / np.asarray(counts[..., 1, :].sum(-1), np.float64)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are not NaN; NaN where there is none."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0).sum(-1) / np.asarray(present.sum(-1), np.float64)


@dataclass(frozen=True)
class Interval:
    """A figure (or a difference of two) with the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(
    counts: np.ndarray,
    *,
    minus: np.ndarray | None = None,
    draw_runs: bool = False,
    figure: Callable[[np.ndarray], np.ndarray] = mean_iou,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap over images of a figure of the whole set; with ``minus``, paired, of a difference.

    A resample draws as many images as there are, with replacement, and its figure is computed from the summed counts:
    exact, not a mean of the images' figures. Both sides of a difference see the same images.

    Args:
        counts: ``(..., N, 3, C)`` of N images; over leading axes (such as seeds) the figure is averaged.
        minus: counts of the other result on the same images; its leading axes may differ.
        draw_runs: the leading axis, several trainings of each side, is resampled too, in pairs.
        figure: from counts ``(..., 3, C)`` to values ``(...)``.

    Raises:
        ValueError: no images, or not as many (images, or runs to draw) on both sides.
    """
    images = counts.shape[-3]
    if images < 1 or (minus is not None and minus.shape[-3] != images):
        raise ValueError(f"counts: expected the same images, at least one; got {images} and "
                         f"{images if minus is None else minus.shape[-3]}")  # fmt: skip
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    weights = np.concatenate([np.ones((1, images)), draws])  # the set itself, then the resamples
    values = _weighted(weights, counts, figure)
    others = np.zeros_like(values) if minus is None else _weighted(weights, minus, figure)
    means = values.mean(0) - others.mean(0)
    if draw_runs:
        if len(others) != len(values):
            raise ValueError(f"minus: expected as many runs as counts has, {len(values)}, got {len(others)}")
        chosen = rng.integers(0, len(values), (resamples, len(values)))
        means[1:] = np.take_along_axis((values - others)[:, 1:].T, chosen, axis=1).mean(1)
    present = means[1:][~np.isnan(means[1:])]  # in some resamples a class may be absent, or all
    low, high = np.quantile(present, [(1 - level) / 2, (1 + level) / 2]) if len(present) else (np.nan, np.nan)
    return Interval(float(means[0]), float(low), float(high))


def _weighted(weights: np.ndarray, counts: np.ndarray, figure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The figure ``(R, B)`` of each of R runs (the leading axes of the counts) under each row of weights ``(B, N)``."""
    flat = counts.reshape(*counts.shape[:-2], -1).astype(np.float64)  # sums of counts are exact below 2^53
    values = figure((weights @ flat).reshape(*counts.shape[:-3], len(weights), 3, -1))
    return values.reshape(-1, len(weights))


def table(columns: Mapping[str, Scores], classes: Sequence[str], *, more: Mapping[str, Sequence[float]] = {}) -> str:
    """Text table of one or more results, in percent: a row for each class, the means, then the rows of ``more``."""
    results = columns.values()
    rows = [(name, [result.iou[index] for result in results]) for index, name in enumerate(classes)]
    rows += [
        ("mIoU", [result.miou for result in results]),
        ("pixel accuracy", [result.pixel_accuracy for result in results]),
        ("mean accuracy", [result.mean_accuracy for result in results]),
        *((name, list(values)) for name, values in more.items()),
    ]
    return Table("IoU, %", ["class", *columns], [[name, *(100 * v for v in values)] for name, values in rows]).text()
