"""Times of the operators beside the peers that are installed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from segmodel.common.environment import peer
from segmodel.experiments.dense_crf import dense_crf_scores, installed
from segmodel.experiments.timing import Call, Times, compare, inputs, quantiles
from segmodel.kernels import backend, guidance_crf, guided_filter

FILTER_SIZES = ((21, 75, 125), (21, 300, 500), (19, 256, 512), (21, 600, 1000))  # labels, height, width
CRF_SIZE = (21, 300, 500)
RADII = (3, 1, 7, 15, 31)
BANDS = (3, 1, 2, 4, 6, 16)
PROCESSES = 3
BACKENDS = {"segmodel": "auto", "segmodel, torch": "torch"} if backend.NUMBA else {"segmodel": "torch"}
"""Contestants of ours: what users get, and where numba is installed what they would get without it."""


def filter_calls(scores: Tensor, guide: Tensor, radius: int = 3) -> dict[str, Call]:
    """The guided filter of each library, guide moments included, on arrays as that library takes them; OpenCV first.

    Raises:
        RuntimeError: OpenCV's result differs.
    """
    calls: dict[str, Call] = {}
    cv2, kornia = peer("cv2"), peer("kornia.filters")
    if cv2 is not None and hasattr(cv2, "ximgproc"):
        picture, maps = (np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()) for x in (guide, scores))
        opencv = lambda: cv2.ximgproc.createGuidedFilter(picture, radius, 1.0).filter(maps)  # noqa: E731
        inside = np.s_[2 * radius : -2 * radius, 2 * radius : -2 * radius]
        difference = np.abs(opencv()[inside] - guided_filter(scores, guide)[0].permute(1, 2, 0).numpy()[inside]).max()
        if difference > 1e-3:
            raise RuntimeError(f"guided filter and OpenCV differ by {difference} inside the border")
        calls["opencv"] = opencv
    for name, engine in BACKENDS.items():
        calls[name] = partial(guided_filter, scores, guide, radius=radius, backend=engine)
    if kornia is not None:
        calls["kornia"] = lambda: kornia.guided_blur(guide, scores, 2 * radius + 1, 1.0)
    return calls


def crf_calls(labels: int, height: int, width: int) -> dict[str, dict[str, Call]]:
    """The guidance CRF, forward and with gradients at quarter size (the paper), and at full size beside a dense CRF."""
    (scores, guide), (small, small_guide) = inputs(labels, height, width), inputs(labels, height // 4, width // 4)
    learned = small.clone().requires_grad_()

    def with_gradients(crf: Callable[..., Tensor]) -> None:
        crf(learned, small_guide).sum().backward()

    tables: tuple[dict[str, Call], ...] = ({}, {}, {}, {})
    forward, gradient, full, single = tables
    for name, engine in BACKENDS.items():
        crf = partial(guidance_crf, backend=engine)
        forward[name] = partial(crf, small, small_guide)
        gradient[name] = partial(with_gradients, crf)
        full[name] = partial(crf, scores, guide)
        single[name] = partial(crf, scores, guide, iterations=1)
    if installed():
        full["pydensecrf, 10 iterations"] = partial(dense_crf_scores, scores, guide)
        single["pydensecrf"] = partial(dense_crf_scores, scores, guide, iterations=1)
    size, quarter = f"{labels}x{height}x{width}", f"{labels}x{height // 4}x{width // 4}"
    return {
        f"guidance CRF, {quarter}, 3 iterations": forward,
        f"guidance CRF, {quarter}, 3 iterations, with gradients": gradient,
        f"guidance CRF, {size}, 3 iterations": full,
        f"guidance CRF, {size}, 1 iteration": single,
    }


def operator_tables(seconds: float) -> Iterator[tuple[str, Times]]:
    """Titles and times, as they come: the filter and the CRF beside their peers, the filter by radius and by bands."""
    contests: dict[str, dict[str, Call]] = {
        "guided filter, guide moments included, {}x{}x{}".format(*size): filter_calls(*inputs(*size))
        for size in FILTER_SIZES
    }
    contests |= crf_calls(*CRF_SIZE)
    scores, guide = inputs(*CRF_SIZE)
    contests["guided filter of {}x{}x{} by radius".format(*CRF_SIZE)] = {
        f"radius {radius}": partial(guided_filter, scores, guide, radius=radius) for radius in RADII
    }
    guides = torch.cat([guide] * 6, 1)[:, : max(BANDS)]
    contests["guided filter of {}x{}x{} by bands of the guide".format(*CRF_SIZE)] = {
        f"{bands} bands": partial(guided_filter, scores, guides[:, :bands]) for bands in BANDS
    }
    for title, calls in contests.items():
        yield title, compare(calls, seconds)


FIRST = """
import time, torch
scores, photo = torch.zeros(2, 60, 80), torch.zeros(3, 60, 80, dtype=torch.uint8)
start = time.perf_counter()
import segmodel
segmodel.refine(scores, photo)
print(1000 * (time.perf_counter() - start))
"""


def first_calls() -> Times:
    """Milliseconds of the first ``refine`` after ``import torch``, imports of ours included, in fresh processes."""

    def milliseconds(engine: str) -> float:
        environment = {**os.environ, backend.VARIABLE: engine, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run([sys.executable, "-c", FIRST], env=environment, capture_output=True, text=True, check=True)
        return float(run.stdout)

    times = {}
    for name, engine in BACKENDS.items():
        milliseconds(engine)  # fills the cache of compiled code
        values = [milliseconds(engine) for _ in range(PROCESSES)]
        times[name] = {**quantiles(values), "min": min(values)}
    return times
