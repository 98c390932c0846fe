"""Sec. 3.2: the rearrangement by loops and by transposition, its inverse, and Eq. 3."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import some

from segmodel.reference.patch_prediction import (
    local_scores,
    patch_rearrange,
    patch_rearrange_by_loops,
    patch_rearrange_inverse,
)

SIZE = st.integers(1, 5)


@some
@given(SIZE, SIZE, st.integers(1, 4), st.integers(1, 3))
def test_loops_transposition_and_inverse_agree(height: int, width: int, n: int, classes: int) -> None:
    x = np.arange(height * width * n * n * classes, dtype=np.float64).reshape(height, width, -1)  # all different
    fine = patch_rearrange_by_loops(x, patch_size=n)
    assert fine.shape == (n * height, n * width, classes)
    np.testing.assert_array_equal(patch_rearrange(x, patch_size=n), fine)
    np.testing.assert_array_equal(patch_rearrange_inverse(fine, patch_size=n), x)


@some
@given(SIZE, SIZE, st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_eq_3_is_one_classifier_for_each_position(height: int, width: int, n: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    f, weight, bias = (
        rng.normal(size=(height, width, 3)),
        rng.normal(size=(3, n * n * classes)),
        rng.normal(size=n * n * classes),
    )
    scores = local_scores(f, weight, bias, patch_size=n)
    for row, column, c in np.ndindex(scores.shape):
        k = ((row % n) * n + column % n) * classes + c
        # three products of numbers near 1
        assert scores[row, column, c] == pytest.approx(f[row // n, column // n] @ weight[:, k] + bias[k], abs=1e-13)


@pytest.mark.parametrize(("channels", "n"), [(4, 0), (4, 3), (6, 2)])
def test_the_channels_must_divide(channels: int, n: int) -> None:
    with pytest.raises(ValueError, match="patch_size: expected n >= 1 with n"):
        patch_rearrange(np.zeros((1, 1, channels)), patch_size=n)


@pytest.mark.parametrize(("height", "width", "n"), [(4, 3, 2), (3, 4, 2), (2, 2, 0)])
def test_the_inverse_wants_whole_patches(height: int, width: int, n: int) -> None:
    with pytest.raises(ValueError, match="patch_size: expected a divisor of"):
        patch_rearrange_inverse(np.zeros((height, width, 1)), patch_size=n)


def test_maps_must_be_maps() -> None:
    for function in (patch_rearrange, patch_rearrange_inverse):
        with pytest.raises(ValueError, match="x: expected"):
            function(np.zeros((2, 2)), patch_size=1)
    with pytest.raises(ValueError, match="features: expected"):
        local_scores(np.zeros((2, 2)), np.zeros((2, 1)), np.zeros(1), patch_size=1)
