"""Times of the operators beside the peers that are installed."""

from functools import partial

import numpy as np
from torch import Tensor

from segmodel.common.environment import peer
from segmodel.experiments.dense_crf import dense_crf_scores, installed
from segmodel.experiments.timing import Call, Times, compare, inputs
from segmodel.kernels import guidance_crf, guided_filter

FILTER_SIZES = ((21, 75, 125), (21, 300, 500), (19, 256, 512))  # labels, height, width
CRF_SIZE = (21, 300, 500)
RADII = (3, 1, 7, 15, 31)


def filter_calls(scores: Tensor, guide: Tensor, radius: int = 3) -> dict[str, Call]:
    """The guided filter of each library, guide moments included, on arrays as that library takes them.

    Raises:
        RuntimeError: OpenCV's result differs.
    """
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
    """The guidance CRF as in the paper (quarter size, 3 iterations) and at full size, and a dense CRF."""
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


def operator_tables(seconds: float) -> dict[str, Times]:
    """Times by title: guided filter and guidance CRF beside their peers, and the filter at growing radii."""
    contests: dict[str, dict[str, Call]] = {
        "guided filter, guide moments included, {}x{}x{}".format(*size): filter_calls(*inputs(*size))
        for size in FILTER_SIZES
    }
    size, (scores, guide) = "{}x{}x{}".format(*CRF_SIZE), inputs(*CRF_SIZE)
    contests[f"guidance CRF of {size}, quarter size unless it says full"] = crf_calls(*CRF_SIZE)
    contests[f"guided filter of {size} by radius"] = {
        f"radius {radius}": partial(guided_filter, scores, guide, radius=radius) for radius in RADII
    }
    return {title: compare(calls, seconds) for title, calls in contests.items()}
