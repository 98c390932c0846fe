"""Softmax, boxes, convolutions and bilinear up-sampling against loops, and each adjoint against its map."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import check_gradient, some

from segmodel.reference import arrays

SIZE = st.integers(1, 7)
SEED = st.integers(0, 99)
# Sums of at most a few hundred float64 products of numbers near 1: round-off below 1e-12.
EXACT = {"rtol": 0, "atol": 1e-12}


def inner(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum())


@some
@given(SIZE, SIZE, st.integers(0, 9), SEED)
def test_box_sum_is_the_sum_over_the_clipped_window(height: int, width: int, radius: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(height, width, 2))
    expected = np.empty_like(x)
    counts = np.empty((height, width, 1))
    for row, column in np.ndindex(height, width):
        window = x[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
        expected[row, column] = window.sum(axis=(0, 1))
        counts[row, column] = window.shape[0] * window.shape[1]
    np.testing.assert_allclose(arrays.box_sum(x, radius=radius), expected, **EXACT)
    np.testing.assert_array_equal(arrays.window_counts(height, width, radius=radius), counts)
    np.testing.assert_allclose(arrays.box_mean(x, radius=radius), expected / counts, **EXACT)


@some
@given(SIZE, SIZE, st.integers(0, 9), SEED)
def test_box_adjoints(height: int, width: int, radius: int, seed: int) -> None:
    x, y = np.random.default_rng(seed).normal(size=(2, height, width, 2))
    assert inner(arrays.box_sum(x, radius=radius), y) == pytest.approx(inner(x, arrays.box_sum(y, radius=radius)))
    adjoint = arrays.box_mean_adjoint(y, radius=radius)
    assert inner(arrays.box_mean(x, radius=radius), y) == pytest.approx(inner(x, adjoint), abs=1e-12)


@some
@given(SIZE, SIZE, st.sampled_from([1, 3, 5]), st.integers(1, 4), SEED)
def test_convolution_by_loops(height: int, width: int, taps: int, dilation: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, kernel = rng.normal(size=(height, width, 2)), rng.normal(size=(taps, taps, 2, 3))
    expected = np.zeros((height, width, 3))
    for row, column, a, b in np.ndindex(height, width, taps, taps):
        y, z = row + dilation * (a - taps // 2), column + dilation * (b - taps // 2)
        if 0 <= y < height and 0 <= z < width:
            expected[row, column] += x[y, z] @ kernel[a, b]
    np.testing.assert_allclose(arrays.convolution(x, kernel, dilation=dilation), expected, **EXACT)


@some
@given(SIZE, SIZE, st.sampled_from([1, 3, 5]), st.integers(1, 3), SEED)
def test_convolution_gradients(height: int, width: int, taps: int, dilation: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, kernel = rng.normal(size=(height, width, 2)), rng.normal(size=(taps, taps, 2, 3))
    y = rng.normal(size=(height, width, 3))
    x_gradient, kernel_gradient = arrays.convolution_gradients(x, kernel, y, dilation=dilation)
    check_gradient(lambda z: inner(arrays.convolution(z, kernel, dilation=dilation), y), x, x_gradient)
    check_gradient(lambda k: inner(arrays.convolution(x, k, dilation=dilation), y), kernel, kernel_gradient)


def test_convolution_default_dilation_is_one() -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(5, 5, 1)), rng.normal(size=(3, 3, 1, 1))
    dense = arrays.convolution(x, kernel, dilation=1)
    np.testing.assert_array_equal(arrays.convolution(x, kernel), dense)
    for default, explicit in zip(
        arrays.convolution_gradients(x, kernel, x), arrays.convolution_gradients(x, kernel, x, dilation=1), strict=True
    ):
        np.testing.assert_array_equal(default, explicit)


@pytest.mark.parametrize("shape", [(2, 2, 1, 1), (3, 1, 1, 1), (3, 3, 2, 1)])
def test_convolution_refuses_other_kernels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="kernel: expected"):
        arrays.convolution(np.ones((4, 4, 1)), np.ones(shape))


@some
@given(SIZE, SIZE, st.integers(1, 5), SEED)
def test_bilinear_by_its_definition(height: int, width: int, factor: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(height, width, 2))
    up = arrays.bilinear_upsample(x, factor=factor)
    assert up.shape == (height * factor, width * factor, 2)
    for row, column in np.ndindex(up.shape[:2]):
        y = min(max((row + 0.5) / factor - 0.5, 0), height - 1)
        z = min(max((column + 0.5) / factor - 0.5, 0), width - 1)
        top, left = int(y), int(z)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = x[top, left] + (z - left) * (x[top, right] - x[top, left])
        lower = x[bottom, left] + (z - left) * (x[bottom, right] - x[bottom, left])
        np.testing.assert_allclose(up[row, column], upper + (y - top) * (lower - upper), **EXACT)


@some
@given(SIZE, SIZE, st.integers(1, 5), SEED)
def test_bilinear_adjoint_and_row_sums(height: int, width: int, factor: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(height, width, 2)), rng.normal(size=(height * factor, width * factor, 2))
    adjoint = arrays.bilinear_upsample_adjoint(y, factor=factor)
    assert inner(arrays.bilinear_upsample(x, factor=factor), y) == pytest.approx(inner(x, adjoint), abs=1e-11)
    np.testing.assert_allclose(arrays.bilinear_matrix(height, factor=factor).sum(axis=1), 1, **EXACT)


@some
@given(st.integers(1, 5), SEED, st.floats(-1e4, 1e4))
def test_softmax(labels: int, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, labels))
    q = arrays.softmax(scores)
    np.testing.assert_allclose(q, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), **EXACT)
    # shift + score loses up to 1e4 * 2^-53 = 1e-12 of the score
    np.testing.assert_allclose(arrays.softmax(scores + shift), q, rtol=0, atol=1e-11)
    y = rng.normal(size=(3, labels))
    check_gradient(lambda s: inner(arrays.softmax(s), y), scores, arrays.softmax_adjoint(q, y))


def test_softmax_is_over_the_last_axis_of_any_number() -> None:
    scores, y = np.random.default_rng(0).normal(size=(2, 2, 4, 3))
    q = arrays.softmax(scores)
    np.testing.assert_allclose(q.sum(axis=2), 1, **EXACT)
    np.testing.assert_allclose(arrays.softmax(scores[0, 0]), q[0, 0], **EXACT)
    check_gradient(lambda s: inner(arrays.softmax(s), y), scores, arrays.softmax_adjoint(q, y))


def test_softmax_of_huge_scores_is_finite() -> None:
    np.testing.assert_array_equal(arrays.softmax([[1e300, 0.0], [-1e300, -1e300]]), [[1, 0], [0.5, 0.5]])


def test_one_hot() -> None:
    np.testing.assert_array_equal(arrays.one_hot(np.array([[1, 255]]), 2), [[[0, 1], [0, 0]]])
    assert arrays.one_hot(np.array([0]), 1).dtype == np.float64


@pytest.mark.parametrize("shape", [(2, 2), (0, 2, 1), (2, 2, 1, 1)])
def test_as_map_names_what_is_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"guide: expected a non-empty array \(H, W, channels\), got shape"):
        arrays.as_map("guide", np.zeros(shape))


def test_as_map_is_float64() -> None:
    assert arrays.as_map("x", np.zeros((1, 2, 3), np.float32)).dtype == np.float64


@pytest.mark.parametrize("value", [-1, 2.0, None, "3"])
def test_require_integer_names_the_value(value: object) -> None:
    with pytest.raises(ValueError, match=f"radius: expected an integer >= 0, got {value}"):
        arrays.require_integer("radius", value)


@pytest.mark.parametrize("bad", [-1, 3, 254, 256])
def test_as_labels_names_the_value(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"labels: expected labels in \[0, 3\) or 255, got {bad}"):
        arrays.as_labels("labels", np.array([0, 2, 255, bad]), 3)


def test_as_labels_wants_integers_and_returns_int64() -> None:
    with pytest.raises(ValueError, match="labels: expected integers, got float64"):
        arrays.as_labels("labels", np.array([0.0]), 3)
    labels = arrays.as_labels("labels", np.array([0, 2, 7], np.uint8), 3, ignore=7)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 2, 7]
