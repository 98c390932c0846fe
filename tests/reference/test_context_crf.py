"""Sec. 4.1, Eq. 9 and 10: boxes and rings, clique expectations, the label context in both readings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import few, some

from segmodel.reference.arrays import convolution, softmax
from segmodel.reference.context_crf import (
    FEATURE_RINGS,
    Ring,
    label_message_box_rings,
    label_message_max_pool,
    mean_field_update,
    mean_field_update_by_definition,
    normalised_max_pool,
    ring_boxes,
    ring_message,
    ring_message_by_definition,
)

SIZE = st.integers(1, 8)
# Some dozens of float64 products of numbers near 1.
EXACT = {"rtol": 0, "atol": 1e-12}


@some
@given(SIZE, SIZE, st.integers(0, 4), st.integers(1, 5), st.integers(0, 99))
def test_a_ring_is_a_box_mean_and_a_dilated_convolution(height, width, radius, dilation, seed) -> None:
    rng = np.random.default_rng(seed)
    x, kernel, ring = rng.normal(size=(height, width, 2)), rng.normal(size=(3, 3, 2, 3)), Ring(radius, dilation)
    literal = ring_message_by_definition(x, kernel, ring=ring)
    np.testing.assert_allclose(ring_message(x, kernel, ring=ring), literal, **EXACT)


def test_the_default_rings_and_their_areas() -> None:
    assert list(FEATURE_RINGS) == [(2, 6), (4, 12)]  # (radius, dilation)
    assert ring_boxes(Ring(2, 6))[0] == (-8, -4, -8, -4)
    assert ring_boxes(Ring(2, 6))[5] == (-2, 2, 4, 8)  # reading order: middle row, right column
    assert ring_boxes(Ring(4, 12))[8] == (8, 16, 8, 16)
    assert Ring(2, 6).scaled(2) == Ring(4, 12)


def test_the_further_the_larger() -> None:
    areas = [
        (bottom - top + 1) * (right - left + 1)
        for top, bottom, left, right in map(lambda r: ring_boxes(r)[0], FEATURE_RINGS)
    ]
    assert areas == [25, 81]


@some
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_eq_9_by_enumeration_and_by_contraction(pixels, labels, seed) -> None:
    rng = np.random.default_rng(seed)
    scores, q = rng.normal(size=(pixels, labels)), softmax(rng.normal(size=(pixels, labels)))
    cliques = []
    for _ in range(3):
        members = tuple(int(i) for i in rng.permutation(pixels)[: rng.integers(1, pixels + 1)])
        cliques.append((members, rng.normal(size=(labels,) * len(members))))
    before = scores.copy()
    literal = mean_field_update_by_definition(scores, cliques, q)
    np.testing.assert_allclose(mean_field_update(scores, cliques, q), literal, **EXACT)
    np.testing.assert_array_equal(scores, before)


def test_eq_9_of_a_lone_pixel_subtracts_its_energy() -> None:
    updated = mean_field_update(np.zeros((1, 2)), [((0,), np.array([3.0, -1.0]))], np.ones((1, 2)) / 2)
    np.testing.assert_array_equal(updated, [[-3, 1]])


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_for_pairs_eq_9_is_a_convolution(height, width, labels, seed) -> None:
    """U of Eq. 10 can be the exact expectation: pairwise tables that depend on the offset are a kernel."""
    rng = np.random.default_rng(seed)
    scores, q = rng.normal(size=(2, height * width, labels))
    q = softmax(q)
    tables = rng.normal(size=(3, 3, labels, labels))  # energy of (label here, label at the offset)
    tables[1, 1] = 0
    updated = scores.copy()
    for y, x in np.ndindex(height, width):
        for a, b in np.ndindex(3, 3):
            other = y + a - 1, x + b - 1
            if (a, b) != (1, 1) and 0 <= other[0] < height and 0 <= other[1] < width:
                i, j = y * width + x, other[0] * width + other[1]
                clique = [((i, j), tables[a, b])]
                updated[i] += (mean_field_update(scores, clique, q) - scores)[i]
    message = convolution(q.reshape(height, width, labels), tables.swapaxes(2, 3))
    np.testing.assert_allclose(updated, scores - message.reshape(-1, labels), **EXACT)


def by_box_rings(scores, kernels, bias, weight, out_bias, rings) -> np.ndarray:
    p = softmax(scores)
    hidden = sum(ring_message_by_definition(p, k, ring=r) for k, r in zip(kernels, rings, strict=True)) + bias
    return np.array(
        [[[cell @ weight[:, c] + out_bias[c] for c in range(weight.shape[1])] for cell in row] for row in hidden]
    )


@few
@given(SIZE, SIZE, st.integers(1, 3), st.integers(0, 99))
def test_label_message_on_probabilities(height, width, classes, seed) -> None:
    rng = np.random.default_rng(seed)
    scores, rings = rng.normal(size=(height, width, classes)), (Ring(0, 1), Ring(1, 3))
    kernels = rng.normal(size=(2, 3, 3, classes, 4))
    bias, weight, out_bias = rng.normal(size=4), rng.normal(size=(4, classes)), rng.normal(size=classes)
    found = label_message_box_rings(scores, kernels, bias, weight, out_bias, rings=rings)
    np.testing.assert_allclose(found, by_box_rings(scores, kernels, bias, weight, out_bias, rings), **EXACT)
    shifted = label_message_box_rings(scores + 5, kernels, bias, weight, out_bias, rings=rings)
    np.testing.assert_allclose(shifted, found, **EXACT)  # probabilities do not see a constant


def test_each_ring_needs_its_kernel() -> None:
    with pytest.raises(ValueError, match="ring_kernels: expected 1 kernels, got 0"):
        label_message_box_rings(np.zeros((1, 1, 1)), [], np.zeros(1), np.zeros((1, 1)), np.zeros(1), rings=[Ring(0, 1)])


@few
@given(SIZE, SIZE, st.integers(1, 3), st.sampled_from([1, 3, 9]), st.integers(0, 99))
def test_normalised_max_pool(height, width, classes, size, seed) -> None:
    scores = np.random.default_rng(seed).normal(size=(height, width, classes))
    found = normalised_max_pool(scores, size=size)
    for row, column in np.ndindex(height, width):
        window = [
            scores[y, x]
            for y, x in np.ndindex(height, width)
            if abs(y - row) <= size // 2 and abs(x - column) <= size // 2
        ]
        m = np.max(window, axis=0)
        np.testing.assert_allclose(found[row, column], m / np.sqrt((m**2).sum() + 1e-5), **EXACT)


def test_max_pool_wants_an_odd_window_and_a_map() -> None:
    with pytest.raises(ValueError, match="size: expected an odd number, got 2"):
        normalised_max_pool(np.zeros((1, 1, 1)), size=2)
    with pytest.raises(ValueError, match="scores: expected"):
        normalised_max_pool(np.zeros((1, 1)), size=3)


@few
@given(SIZE, SIZE, st.integers(1, 3), st.integers(0, 99))
def test_label_message_on_scores(height, width, classes, seed) -> None:
    rng = np.random.default_rng(seed)
    scores, kernel = rng.normal(size=(height, width, classes)), rng.normal(size=(7, 7, classes, 4))
    bias, weight, out_bias = rng.normal(size=4), rng.normal(size=(4, classes)), rng.normal(size=classes)
    found = label_message_max_pool(scores, kernel, bias, weight, out_bias, pool=3)
    hidden = convolution(normalised_max_pool(scores, size=3), kernel) + bias
    np.testing.assert_allclose(found, np.einsum("yxh,hc->yxc", hidden, weight) + out_bias, **EXACT)


def test_the_label_context_s_window_is_25_by_default() -> None:
    rng = np.random.default_rng(0)
    scores, kernel = rng.normal(size=(1, 30, 2)), rng.normal(size=(7, 7, 2, 1))
    rest = np.zeros(1), np.ones((1, 2)), np.zeros(2)
    explicit = label_message_max_pool(scores, kernel, *rest, pool=25)
    np.testing.assert_array_equal(label_message_max_pool(scores, kernel, *rest), explicit)
    assert not np.allclose(label_message_max_pool(scores, kernel, *rest, pool=23), explicit)
