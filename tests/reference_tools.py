"""What the tests of the reference share: random pictures of any size, and finite differences."""

from collections.abc import Callable

import numpy as np
from hypothesis import settings

# Deterministic and without a deadline: the literal forms are slow on purpose.
few = settings(max_examples=15, deadline=None, derandomize=True)
some = settings(max_examples=40, deadline=None, derandomize=True)


def finite_differences(
    function: Callable[[np.ndarray], float], at: np.ndarray, *, step: float = 1e-5, entries: int = 24, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences at up to ``entries`` random positions: their flat indices, and the slopes there."""
    chosen = np.random.default_rng(seed).permutation(at.size)[:entries]
    slopes = []
    for index in chosen:
        shift = np.zeros(at.size)
        shift[index] = step
        shift = shift.reshape(at.shape)
        slopes.append((function(at + shift) - function(at - shift)) / (2 * step))
    return chosen, np.array(slopes)


def check_gradient(
    function: Callable[[np.ndarray], float], at: np.ndarray, gradient: np.ndarray, *, step: float = 1e-5
) -> None:
    """Central differences err by step^2 times the third derivative plus round-off / step: about 1e-8 of the scale."""
    gradient = np.asarray(gradient, dtype=np.float64)
    assert gradient.shape == at.shape
    chosen, slopes = finite_differences(function, np.asarray(at, dtype=np.float64), step=step)
    scale = max(1.0, float(np.abs(gradient).max()))
    np.testing.assert_allclose(gradient.ravel()[chosen], slopes, rtol=0, atol=2e-7 * scale)
