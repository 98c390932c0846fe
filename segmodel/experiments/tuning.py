"""Settings of a refinement: found on a few labelled images, evaluated on others."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from PIL import Image

from segmodel.common.labels import IGNORE
from segmodel.data.images import picture_pixels
from segmodel.evaluation.boundary import SHARE
from segmodel.evaluation.evaluate import Counter, Evaluation
from segmodel.evaluation.metrics import mean_iou
from segmodel.inference.refine import refine
from segmodel.inference.refinement import Refinement

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
    """The best settings, the metric (0..1) without refinement and with them, and its value for all that was tried."""

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
        samples: (logits (C, h, w), image (H, W, 3) uint8, labels (H, W)) of each image; a dozen images are a start.
        metric: "miou", or "boundary_iou" (Cheng et al., 2021), over all samples together.
        start: where to begin; its stride and iterations are kept (default: the paper's settings).
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
    classes = sorted({len(scores) for scores, _, _ in samples})
    if len(classes) > 1 or classes[0] > IGNORE:
        raise ValueError(f"samples: expected scores of the same, at most {IGNORE} classes, got {classes}")
    unknown = set(values or ()) - {item.name for item in fields(Refinement)}
    if unknown:
        raise ValueError(f"values: expected fields of Refinement, got {', '.join(sorted(unknown))}")
    best = start or Refinement.paper()
    none = replace(best, weight=0.0)
    tried: dict[Refinement, float] = {}

    def value(settings: Refinement) -> float:
        settings = none if settings.weight == 0 else settings
        if settings not in tried:
            ratio = SHARE if metric == "boundary_iou" else None
            (found,) = _evaluations(samples, [settings], boundary=ratio)
            tried[settings] = float(mean_iou((found.counts if ratio is None else found.boundary).sum(0)))
        return tried[settings]

    axes = (VALUES if values is None else values).items()
    before: Refinement | None = None
    while before != best:
        before = best
        for name, options in axes:
            best = max((best, *(replace(best, **{name: option}) for option in options)), key=value)  # type: ignore[arg-type]
    best = max((none, best), key=value)
    return Tuned(best, value(none), value(best), tried)


def _evaluations(
    samples: Iterable[Labelled], tried: Sequence[Refinement], *, boundary: float | None, widths: Sequence[int] = ()
) -> list[Evaluation]:
    """One evaluation of the samples for each of the settings, in one pass."""
    counters: list[Counter] = []
    for scores, image, label in samples:
        counters = counters or [Counter(len(scores), boundary=boundary, widths=widths) for _ in tried]
        for counter, settings in zip(counters, tried, strict=True):
            start = time.perf_counter()
            labels = refine(scores, image, **asdict(settings)).argmax(0).astype(np.uint8)
            counter.add(labels, label, seconds=time.perf_counter() - start)
    return [counter.evaluation() for counter in counters]


def report(samples: Iterable[Labelled], settings: Refinement) -> dict[str, dict[str, float]]:
    """mIoU, Boundary IoU, trimap mIoU (0..1) and seconds an image, "before" and "after" refinement.

    Before is the scores enlarged bilinearly to the image, which is what ``refine`` does with weight 0.
    """
    result = {}
    tried = (replace(settings, weight=0.0), settings)
    before, after = _evaluations(samples, tried, boundary=SHARE, widths=(TRIMAP,))
    for title, found in (("before", before), ("after", after)):
        counts = {"miou": found.counts, "boundary_iou": found.boundary, f"trimap_{TRIMAP}": found.trimap[:, 0]}
        result[title] = {name: float(mean_iou(part.sum(0))) for name, part in counts.items()}
        result[title]["seconds"] = float(found.seconds.mean())
    return result
