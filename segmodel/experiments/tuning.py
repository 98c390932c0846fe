"""Settings of a refinement, found on a few labelled images and judged on others."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from PIL import Image

from segmodel.common.labels import IGNORE
from segmodel.data.images import picture_pixels
from segmodel.evaluation.boundary import boundary_counts, trimap_counts
from segmodel.evaluation.metrics import ConfusionMatrix, mean_iou
from segmodel.inference.refinement import Refinement, refine

Metric = Literal["miou", "boundary_iou"]
Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits (C, h, w), image (H, W, 3), labels (H, W) with 255 ignored."""
VALUES: dict[str, tuple[float, ...]] = {
    "radius": (1, 2, 3, 5, 8, 12),
    "weight": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0),
    "eps": (1.0, 10.0, 100.0, 1000.0),
}
TRIMAP = 5
"""Width of the trimap of the report, in pixels."""


@dataclass(frozen=True)
class Tuned:
    """The best settings, the metric (0..1) without refinement and with them, and all that was tried."""

    settings: Refinement
    before: float
    after: float
    tried: Mapping[Refinement, float]


def tune_refinement(
    samples: Iterable[Labelled],
    *,
    metric: Metric = "miou",
    start: Refinement | None = None,
    values: Mapping[str, Sequence[float]] | None = None,
) -> Tuned:
    """The settings of ``refine`` with the best metric over all samples.

    Args:
        samples: some (logits (C, h, w), image (H, W, 3) uint8, labels (H, W)); a dozen images are a start.
        metric: "miou", or "boundary_iou" (Cheng et al., 2021), over the whole of the samples.
        start: where to begin; its stride and iterations stay (default: the paper's settings).
        values: what is tried for each field of ``Refinement`` (default: ``VALUES``).

    Raises:
        ValueError: no samples, samples that ``refine`` does not take, more than 255 classes, or a name in ``values``
            that is no field.
    """
    samples = [
        (np.asarray(scores), picture_pixels(image) if isinstance(image, Image.Image) else np.asarray(image),
         np.asarray(label)) for scores, image, label in samples
    ]  # fmt: skip
    if metric not in get_args(Metric) or not samples:
        raise ValueError(f"metric, samples: expected one of {', '.join(get_args(Metric))} and at least one sample, "
                         f"got {metric!r} and {len(samples)}")  # fmt: skip
    if max(len(scores) for scores, _, _ in samples) > IGNORE:
        raise ValueError(f"samples: expected scores of at most {IGNORE} classes: labels are bytes")
    unknown = set(values or ()) - {item.name for item in fields(Refinement)}
    if unknown:
        raise ValueError(f"values: expected fields of Refinement, got {', '.join(sorted(unknown))}")
    best = start or Refinement()
    none = replace(best, weight=0.0)
    tried: dict[Refinement, float] = {}

    def value(settings: Refinement) -> float:
        settings = none if settings.weight == 0 else settings
        if settings not in tried:
            tried[settings] = _judge(samples, settings, metric)
        return tried[settings]

    axes = (VALUES if values is None else values).items()
    before: Refinement | None = None
    while before != best:
        before = best
        for name, options in axes:
            best = max((best, *(replace(best, **{name: option}) for option in options)), key=value)  # type: ignore[arg-type]
    best = max((none, best), key=value)
    return Tuned(best, value(none), value(best), tried)


def _judge(samples: Iterable[Labelled], settings: Refinement, metric: Metric) -> float:
    total: np.ndarray | int = 0
    for scores, image, label in samples:
        labels = _labels(scores, image, settings)
        total = total + _counts(labels, label, len(scores))[metric]
    return float(mean_iou(np.asarray(total)))


def _labels(scores: np.ndarray, image: np.ndarray, settings: Refinement) -> np.ndarray:
    return refine(scores, image, **asdict(settings)).argmax(0).astype(np.uint8)


def _counts(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    matrix = ConfusionMatrix(num_classes)
    matrix.update(prediction, label)
    return {"miou": matrix.class_counts(), "boundary_iou": boundary_counts(prediction, label, num_classes)}


def report(samples: Iterable[Labelled], settings: Refinement) -> dict[str, dict[str, float]]:
    """mIoU, Boundary IoU, trimap mIoU (0..1) and seconds an image, "before" and "after" refinement.

    Before is the scores enlarged bilinearly to the image, which is what ``refine`` does with weight 0.
    """
    total: dict[str, dict[str, np.ndarray]] = {}
    spent: dict[str, float] = {}
    images = 0
    for scores, image, label in samples:
        images += 1
        for title, chosen in (("before", replace(settings, weight=0.0)), ("after", settings)):
            start = time.perf_counter()
            labels = _labels(scores, image, chosen)
            seconds = time.perf_counter() - start
            counts = _counts(labels, label, len(scores))
            counts[f"trimap_{TRIMAP}"] = trimap_counts(labels, label, len(scores), widths=[TRIMAP])[0]
            sums = total.setdefault(title, {})
            for name, more in counts.items():
                sums[name] = sums.get(name, 0) + more
            spent[title] = spent.get(title, 0.0) + seconds
    return {
        title: {name: float(mean_iou(value)) for name, value in sums.items()} | {"seconds": spent[title] / images}
        for title, sums in total.items()
    }
