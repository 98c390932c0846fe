"""Settings of a refinement: found on a few labelled images, evaluated on others."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image
from tqdm import tqdm

from segmodel.common.labels import IGNORE
from segmodel.data.images import picture_pixels
from segmodel.evaluation.boundary import SHARE
from segmodel.evaluation.evaluate import Counter, Evaluation
from segmodel.evaluation.metrics import Interval, bootstrap, mean_iou
from segmodel.inference.refine import refine
from segmodel.model.untrained_crf import Refinement

Metric = Literal["miou", "boundary_iou"]
Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits (C, h, w), image (H, W, 3), labels (H, W) with 255 ignored."""
VALUES: dict[str, tuple[float | None, ...]] = {
    "radius": (None, 2, 3, 5, 8, 12, 16, 24, 32),
    "weight": (None, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    "balance": (None, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
    "eps": (1.0, 10.0, 100.0, 1000.0),
    "iterations": (None, 1, 3, 5, 10),
}
"""What is tried; None: what follows from each picture's scores."""
TRIMAP = 5
"""Width of the trimap of the report, in pixels."""


@dataclass(frozen=True)
class Tuned:
    """The best settings, the metric (0..1) without refinement, at the start and with them, and for all that was tried.

    ``gain`` and ``over_start``: what they gain over no refinement and over the start, with the paired 95 % interval
    over the samples. They were chosen on these samples: what remains on others, ``report`` says.
    """

    settings: Refinement
    before: float
    started: float
    after: float
    gain: Interval
    over_start: Interval
    tried: Mapping[Refinement, float]


def tune_refinement(
    samples: Iterable[Labelled],
    *,
    metric: Metric = "miou",
    start: Refinement | None = None,
    values: Mapping[str, Sequence[float | None]] | None = None,
) -> Tuned:
    """The settings of ``refine`` with the best metric over all samples.

    Args:
        samples: (logits (C, h, w), image (H, W, 3) uint8, labels (H, W)) of each image; a dozen images are a start.
        metric: "miou", or "boundary_iou" (Cheng et al., 2021), over all samples together.
        start: where to begin (default: all from the scores); what ``values`` does not name is kept.
        values: what is tried for each field of ``Refinement`` (default: ``VALUES``).

    Raises:
        ValueError: no samples, samples that ``refine`` does not take, more than 255 classes, or a name in ``values``
            that is no field.
    """
    samples = _checked(samples, metric, values or {})
    best = start = start or Refinement()
    none = replace(best, weight=0.0)
    counts: dict[Refinement, np.ndarray] = {}
    tried: dict[Refinement, float] = {}

    def value(settings: Refinement) -> float:
        settings = none if settings.weight == 0 else settings
        if settings not in tried:
            ratio = SHARE if metric == "boundary_iou" else None
            (found,) = _evaluations(samples, [settings], boundary=ratio)
            counts[settings] = found.counts if ratio is None else found.boundary
            tried[settings] = float(mean_iou(counts[settings].sum(0)))
            shown.update()
        return tried[settings]

    axes = (VALUES if values is None else values).items()
    last: Refinement | None = None
    with tqdm(desc="settings", unit="setting", leave=False, disable=None) as shown:
        while last != best:
            last = best
            for name, options in axes:
                best = max((best, *(replace(best, **{name: option}) for option in options)), key=value)  # type: ignore[arg-type]
        best = max((none, best), key=value)
        best = none if best.weight == 0 else best
        before, started, after = value(none), value(start), value(best)

    def over(other: Refinement) -> Interval:
        return bootstrap(counts[best], minus=counts[none if other.weight == 0 else other])

    return Tuned(best, before, started, after, over(none), over(start), tried)


def settings_text(settings: Mapping[str, float | None]) -> str:
    """Fields of a ``Refinement`` in words."""
    return ", ".join(f"{name} {'from the scores' if value is None else f'{value:g}'}"
                     for name, value in settings.items())  # fmt: skip


def _checked(samples: Iterable[Labelled], metric: str, values: Mapping[str, Sequence[float | None]]) -> list[Labelled]:
    """The samples as arrays, once all arguments of ``tune_refinement`` are such as it takes."""
    found = [
        (np.asarray(scores), picture_pixels(image) if isinstance(image, Image.Image) else np.asarray(image),
         np.asarray(label)) for scores, image, label in samples
    ]  # fmt: skip
    if metric not in get_args(Metric) or not found:
        raise ValueError(f"metric, samples: expected one of {', '.join(get_args(Metric))} and at least one sample, "
                         f"got {metric!r} and {len(found)}")  # fmt: skip
    classes = sorted({len(scores) for scores, _, _ in found})
    if len(classes) > 1 or classes[0] > IGNORE:
        raise ValueError(f"samples: expected scores of the same, at most {IGNORE} classes, got {classes}")
    unknown = set(values) - {item.name for item in fields(Refinement)}
    if unknown:
        raise ValueError(f"values: expected fields of Refinement, got {', '.join(sorted(unknown))}")
    return found


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


def report(samples: Iterable[Labelled], settings: Refinement) -> dict[str, dict[str, Any]]:
    """mIoU, Boundary IoU, trimap mIoU (0..1) and seconds an image: "before", with the "defaults" and "after".

    Before is the scores enlarged bilinearly to the image, which is what ``refine`` does with weight 0. "gain" is that
    of after over before, and "over_defaults" over the defaults, each (value, low, high) of the paired 95 % interval.
    """
    tried = {"before": replace(settings, weight=0.0), "defaults": Refinement(stride=settings.stride), "after": settings}
    found = dict(zip(tried, _evaluations(samples, list(tried.values()), boundary=SHARE, widths=(TRIMAP,)), strict=True))
    counts = {title: {"miou": item.counts, "boundary_iou": item.boundary, f"trimap_{TRIMAP}": item.trimap[:, 0]}
              for title, item in found.items()}  # fmt: skip
    result: dict[str, dict[str, Any]] = {
        title: {name: float(mean_iou(part.sum(0))) for name, part in parts.items()}
        | {"seconds": float(found[title].seconds.mean())}
        for title, parts in counts.items()
    }
    for title, other in (("gain", "before"), ("over_defaults", "defaults")):
        result[title] = {name: astuple(bootstrap(part, minus=counts[other][name]))
                         for name, part in counts["after"].items()}  # fmt: skip
    return result
