"""The methods of refinement beside each other: quality, time and memory on the same scores and pictures."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segmodel.common.environment import peer
from segmodel.common.html import curves
from segmodel.common.tables import Table
from segmodel.evaluation.boundary import SHARE
from segmodel.evaluation.evaluate import Counter, Evaluation
from segmodel.evaluation.metrics import Interval, bootstrap, mean_iou
from segmodel.evaluation.tuning import TRIMAP, Labelled
from segmodel.experiments import dense_crf, refiners
from segmodel.experiments.timing import added_memory, timed
from segmodel.inference.refine import refine
from segmodel.model.untrained_crf import Refinement

FIGURES = {"mIoU": "counts", "Boundary IoU": "boundary", f"within {TRIMAP} px": "trimap"}
"""Figure -> counts in an ``Evaluation``."""


@dataclass(frozen=True)
class Method:
    """A method by name: a function of ``refiners``, or None for ``refine``; its settings, the first being the usual.

    lacks: why it cannot run here, or empty.
    """

    name: str
    function: Callable[..., np.ndarray] | None
    settings: Sequence[Mapping[str, Any]] = ({},)
    lacks: str = ""

    def labels(self, logits: np.ndarray, picture: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
        if self.function is None:
            return refine(logits, picture, **settings).argmax(0).astype(np.uint8)
        return self.function(logits, picture, **settings)


def _grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination."""
    result: list[dict[str, Any]] = [{}]
    for name, options in values.items():
        result = [{**found, name: option} for found in result for option in options]
    return result


def methods(tuned: Mapping[str, Any] | None) -> list[Method]:
    """What is compared, and what cannot be here; ``tuned``: settings of segmodel.tune, or None."""
    ximgproc = hasattr(peer("cv2"), "ximgproc")
    opencv = "" if ximgproc else "needs OpenCV with ximgproc: pip install opencv-contrib-python-headless"
    crf = "" if dense_crf.installed() else "needs pydensecrf, which has to be compiled"
    paper = {name: value for name, value in asdict(Refinement.paper()).items() if value is not None}
    return [
        Method("bilinear", refiners.bilinear),
        Method("guidance CRF, the paper's settings", None, (paper,)),
        Method("guidance CRF, defaults", None),
        Method("guidance CRF, tuned", None, (tuned or {},), "" if tuned else "needs --settings"),
        Method("guided filter (OpenCV)", refiners.opencv_guided_filter,
               _grid(radius=(16, 8, 40), eps=(100.0, 1000.0)), opencv),
        Method("fast global smoother (OpenCV)", refiners.opencv_fast_global_smoother,
               _grid(lambda_=(900.0, 100.0, 8000.0), sigma=(8.0, 3.0, 16.0)), opencv),
        Method("dense CRF (pydensecrf)", refiners.dense_crf,
               _grid(sxy=(80, 40), srgb=(13, 5), compat=(10, 4), iterations=(10,)), crf),
        Method("joint bilateral up-sampling (our small form)", refiners.joint_bilateral_upsampling,
               _grid(sigma=(1.0, 0.5), colour=(25.0, 12.0), radius=(2,))),
        Method("bilateral solver (our small form)", refiners.bilateral_solver,
               _grid(sigma=(16.0,), luma=(8.0, 16.0), chroma=(8.0,), smoothness=(32.0, 128.0))),
    ]  # fmt: skip


def chosen(method: Method, samples: Sequence[Labelled]) -> Mapping[str, Any]:
    """The settings of the method with the best mIoU on the samples; the usual ones without samples."""

    def value(settings: Mapping[str, Any]) -> float:
        counter = Counter(len(samples[0][0]))
        for logits, picture, label in samples:
            counter.add(method.labels(logits, picture, settings), label)
        return float(mean_iou(counter.evaluation().counts.sum(0)))

    return max(method.settings, key=value) if samples and len(method.settings) > 1 else method.settings[0]


@dataclass(frozen=True)
class Outcome:
    """A method's settings, counts and seconds on each image, and MiB added on the largest one (None: not measured)."""

    settings: Mapping[str, Any]
    found: Evaluation
    mib: float | None


Picked = Sequence[tuple[Method, Mapping[str, Any]]]
"""Methods with their settings."""


def run_methods(samples: Iterable[Labelled], picked: Picked) -> dict[str, Outcome]:
    """Every method on every sample, in turns, so that a busy machine is busy for all."""
    counters: dict[str, Counter] = {}
    largest: Labelled | None = None
    for logits, picture, label in samples:
        if largest is None or picture.size > largest[1].size:
            largest = logits, picture, label
        for method, settings in picked:
            if method.name not in counters:
                counters[method.name] = Counter(len(logits), boundary=SHARE, widths=(TRIMAP,))
                method.labels(logits, picture, settings)  # the first call compiles and loads
            labels, milliseconds = timed(lambda: method.labels(logits, picture, settings))  # noqa: B023
            counters[method.name].add(labels, label, seconds=milliseconds / 1000)
    if largest is None:
        raise ValueError("samples: expected at least one, got none")
    logits, picture, _ = largest
    return {
        method.name: Outcome(
            settings,
            counters[method.name].evaluation(),
            added_memory(lambda: method.labels(logits, picture, settings)),  # noqa: B023
        )
        for method, settings in picked
    }


def _counts(outcome: Outcome, figure: str) -> np.ndarray:
    counts = getattr(outcome.found, FIGURES[figure])
    return counts[:, 0] if FIGURES[figure] == "trimap" else counts


def changes(outcomes: Mapping[str, Outcome], figure: str) -> dict[str, Interval]:
    """How each method changes a figure (0..1) against the first one: paired over the images, with its 95 % interval."""
    before = _counts(next(iter(outcomes.values())), figure)
    return {name: bootstrap(_counts(outcome, figure), minus=before) for name, outcome in outcomes.items()}


def figures(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """By method: each figure with its change and interval in percent, milliseconds, MiB and settings."""
    values: dict[str, dict[str, Any]] = {name: {} for name in outcomes}
    for figure in FIGURES:
        for name, change in changes(outcomes, figure).items():
            values[name][figure] = {
                "value": 100 * float(mean_iou(_counts(outcomes[name], figure).sum(0))),
                **{key: 100 * number for key, number in asdict(change).items() if key != "value"},
                "change": 100 * change.value,
            }
    for name, outcome in outcomes.items():
        values[name] |= {"ms": 1000 * float(np.median(outcome.found.seconds)), "MiB": outcome.mib,
                         "settings": dict(outcome.settings)}  # fmt: skip
    return values


def refinement_table(title: str, values: Mapping[str, Mapping[str, Any]], lacking: Sequence[Method]) -> Table:
    """A row a method."""
    head = ["method", *(cell for figure in FIGURES for cell in (figure, "against the first")), "ms", "MiB"]
    rows = []
    for index, (name, found) in enumerate(values.items()):
        cells: list[Any] = [name]
        for figure in FIGURES:
            one = found[figure]
            change = f"{one['change']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]" if index else ""
            cells += [one["value"], change]
        rows.append([*cells, f"{found['ms']:.0f}", "-" if found["MiB"] is None else f"{found['MiB']:.0f}"])
    settings = "; ".join(f"{name}: {', '.join(f'{key} {value:g}' for key, value in found['settings'].items())}"
                         for name, found in values.items() if found["settings"])  # fmt: skip
    left = "".join(f"\nleft out: {method.name}: {method.lacks}" for method in lacking)
    note = ("[95 % intervals], paired, bootstrap over images; ms: median of an image; MiB: added to the process on the "
            f"largest image\nsettings: {settings}{left}")  # fmt: skip
    return Table(title, head, rows, note)


def refinement_plots(values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each figure against time, as blocks of a page."""
    return [
        curves(
            {name: [(math.log10(max(found["ms"], 0.1)), found[figure]["value"])] for name, found in values.items()},
            powers=True, x_label="milliseconds an image", y_label=f"{figure}, %", caption=f"{figure} against time",
        )
        for figure in FIGURES
    ]  # fmt: skip
