"""Times the operators against the peers that are installed."""

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from segmodel.common.environment import peer
from segmodel.experiments.dense_crf import dense_crf_scores, installed
from segmodel.experiments.timing import Call, compare, inputs
from segmodel.kernels import guidance_crf, guided_filter

FILTER_SIZES = ((21, 75, 125), (21, 300, 500), (19, 256, 512))  # labels, height, width
CRF_SIZE = (21, 300, 500)
RADII = (3, 1, 7, 15, 31)


def filter_calls(scores: Tensor, guide: Tensor, radius: int = 3) -> dict[str, Call]:
    """The guided filter, guide moments included, as every library wants its arrays."""
    calls: dict[str, Call] = {"segmodel": lambda: guided_filter(scores, guide, radius=radius)}
    cv2, kornia = peer("cv2"), peer("kornia.filters")
    if cv2 is not None and hasattr(cv2, "ximgproc"):
        picture, maps = (np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()) for x in (guide, scores))
        opencv = lambda: cv2.ximgproc.createGuidedFilter(picture, radius, 1.0).filter(maps)  # noqa: E731
        inside = np.s_[2 * radius : -2 * radius, 2 * radius : -2 * radius]
        difference = np.abs(opencv()[inside] - guided_filter(scores, guide)[0].permute(1, 2, 0).numpy()[inside]).max()
        if difference > 1e-3:
            raise RuntimeError(f"guided filter and OpenCV differ by {difference} inside the border")
        calls["opencv"] = opencv
    if kornia is not None:
        calls["kornia"] = lambda: kornia.guided_blur(guide, scores, 2 * radius + 1, 1.0)
    return calls


def crf_calls(labels: int, height: int, width: int) -> dict[str, Call]:
    """The guidance CRF as the paper uses it (quarter size, 3 iterations), at full size, and a dense CRF."""
    (scores, guide), (small, small_guide) = inputs(labels, height, width), inputs(labels, height // 4, width // 4)
    small.requires_grad_()
    calls: dict[str, Call] = {
        "segmodel": lambda: guidance_crf(small.detach(), small_guide),
        "segmodel, with gradient": lambda: guidance_crf(small, small_guide).sum().backward(),
        "segmodel, full size": lambda: guidance_crf(scores, guide),
        "segmodel, full size, 1 iteration": lambda: guidance_crf(scores, guide, iterations=1),
    }
    if installed():
        for count in (10, 1):
            name = f"pydensecrf, full size, {count} iteration{'s' * (count > 1)}"
            calls[name] = partial(dense_crf_scores, scores, guide, iterations=count)
    return calls


def print_table(title: str, rows: dict[str, dict[str, float | None]]) -> None:
    print(f"\n{title}\n{'':38}{'p20':>9}{'p50':>9}{'p80':>9}{'min':>9}{'ratio':>8}{'peak MiB':>10}")
    for name, row in rows.items():
        times = "".join(f"{row[key]:9.2f}" for key in ("p20", "p50", "p80", "min"))
        memory = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        print(f"{name:38}{times}{row['ratio']:8.2f}{memory:>10}")


def operator_tables(seconds: float) -> dict[str, Any]:
    """The guided filter and the guidance CRF against their peers, and how the filter grows with its radius."""
    tables: dict[str, Any] = {}
    for size in FILTER_SIZES:
        scores, guide = inputs(*size)
        calls = filter_calls(scores, guide)
        tables["guided filter, guide moments included, {}x{}x{}".format(*size)] = compare(calls, seconds)
    tables["guidance CRF of {}x{}x{}, quarter size unless it says full".format(*CRF_SIZE)] = compare(
        crf_calls(*CRF_SIZE), seconds
    )
    scores, guide = inputs(*CRF_SIZE)
    by_radius: dict[str, Call] = {f"radius {r}": partial(guided_filter, scores, guide, radius=r) for r in RADII}
    tables["guided filter of {}x{}x{} by radius".format(*CRF_SIZE)] = compare(by_radius, seconds)
    return tables
