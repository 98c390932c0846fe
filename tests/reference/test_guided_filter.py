"""Eq. 11, 12 and 16: the dense matrix, the linear-time filter, the adjoint, the guide's gradient, three borders."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import check_gradient, few, some

from segmodel.reference.arrays import box_mean, window_counts
from segmodel.reference.guided_filter import (
    BORDERS,
    dense_weights,
    guided_filter,
    guided_filter_adjoint,
    guided_filter_guide_gradient,
)

# A few hundred float64 roundings of colours up to 255 and their squares, over eps >= 0.5: 65025 * 2^-53 * some tens.
EXACT = {"rtol": 0, "atol": 1e-9}
CASE = {
    "height": st.integers(1, 6),
    "width": st.integers(1, 6),
    "channels": st.sampled_from([1, 2, 3, 4, 6, 16]),
    "radius": st.integers(0, 4),
    "epsilon": st.sampled_from([0.5, 1.0, 100.0]),
    "kind": st.sampled_from(["texture", "flat", "edge", "extremes"]),
    "seed": st.integers(0, 99),
}


def draw_guide(height: int, width: int, channels: int, kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "texture":
        return rng.uniform(0, 255, (height, width, channels))
    if kind == "flat":
        return np.full((height, width, channels), 200.0)
    if kind == "edge":
        return np.broadcast_to(np.where(np.arange(width) < width // 2, 40.0, 210.0)[:, None], (height, width, channels))
    return rng.choice([0.0, 255.0], (height, width, channels))


def dense(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (matrix @ x.reshape(len(matrix), -1)).reshape(x.shape)


@pytest.mark.parametrize("border", BORDERS)
@some
@given(**CASE)
def test_linear_time_is_the_dense_matrix(border: str, height, width, channels, radius, epsilon, kind, seed) -> None:
    guide = draw_guide(height, width, channels, kind, seed)
    p, y = np.random.default_rng(seed).normal(size=(2, height, width, 2))
    options = {"radius": radius, "epsilon": epsilon, "border": border}
    w = dense_weights(guide, **options)
    np.testing.assert_allclose(guided_filter(p, guide, **options), dense(w, p), **EXACT)
    np.testing.assert_allclose(guided_filter_adjoint(y, guide, **options), dense(w.T, y), **EXACT)


def weights_by_statistics(guide: np.ndarray, radius: int, border: str) -> np.ndarray:
    """W once more, each window cut out of the picture (zeros outside it for "authors") and given to np.cov."""
    height, width, channels = guide.shape
    side, counts = 2 * radius + 1, window_counts(height, width, radius=radius)[..., 0]
    padded = np.pad(guide, ((radius, radius), (radius, radius), (0, 0)))
    inside = np.pad(np.ones((height, width), bool), radius)
    number = np.pad(np.arange(height * width).reshape(height, width), radius)
    total = np.zeros((height * width, height * width))
    for row, column in np.ndindex(height, width):
        cut = np.s_[row : row + side, column : column + side]
        seen = padded[cut].reshape(-1, channels)
        here = inside[cut].ravel()
        sample = seen if border == "authors" else seen[here]
        centred = seen[here] - sample.mean(axis=0)
        inverse = np.linalg.inv(np.cov(sample.T, bias=True).reshape(channels, channels) + np.eye(channels))
        members = number[cut].ravel()[here]
        share = counts[row, column] if border == "clipped" else side**2
        total[np.ix_(members, members)] += (1 + centred @ inverse @ centred.T) / share
    return total / (counts.reshape(-1, 1) if border == "clipped" else side**2)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_the_three_borders_by_their_statistics(border: str, channels: int) -> None:
    guide = draw_guide(6, 7, channels, "texture", 5)  # larger than the window, where the authors' area is the window's
    w = dense_weights(guide, radius=2, border=border)
    np.testing.assert_allclose(w, weights_by_statistics(guide, 2, border), **EXACT)


def test_the_authors_area_is_no_larger_than_the_picture() -> None:
    guide = np.zeros((3, 9, 1))  # black: zero-padding changes no moment
    w = dense_weights(guide, radius=2, border="authors")
    expected = weights_by_statistics(guide, 2, "constant") * (5 * 5) ** 2 / (3 * 5) ** 2
    np.testing.assert_allclose(w, expected, **EXACT)


@pytest.mark.parametrize("border", BORDERS)
@few
@given(**(CASE | {"epsilon": st.just(900.0)}))  # a smooth filter, so that differences of colours are well resolved
def test_guide_gradient(border: str, height, width, channels, radius, epsilon, kind, seed) -> None:
    guide = draw_guide(height, width, channels, kind, seed)
    p, y = np.random.default_rng(seed).normal(size=(2, height, width, 2))
    options = {"radius": radius, "epsilon": epsilon, "border": border}
    gradient = guided_filter_guide_gradient(y, p, guide, **options)
    check_gradient(lambda g: float((guided_filter(p, g, **options) * y).sum()), guide, gradient, step=1e-2)


@pytest.mark.parametrize("border", BORDERS)
def test_guide_gradient_is_not_just_small(border: str) -> None:
    guide = draw_guide(5, 6, 3, "texture", 0)
    p, y = np.random.default_rng(1).normal(size=(2, 5, 6, 2))
    options = {"radius": 1, "epsilon": 50.0, "border": border}
    gradient = guided_filter_guide_gradient(y, p, guide, **options)
    assert np.abs(gradient).max() > 1e-3  # far above the tolerance of 2e-7
    check_gradient(lambda g: float((guided_filter(p, g, **options) * y).sum()), guide, gradient, step=1e-3)


@some
@given(**CASE)
def test_clipped_rows_sum_to_one_and_dw_is_symmetric(height, width, channels, radius, epsilon, kind, seed) -> None:
    guide = draw_guide(height, width, channels, kind, seed)
    w = dense_weights(guide, radius=radius, epsilon=epsilon)
    counts = window_counts(height, width, radius=radius).ravel()
    dw = counts[:, None] * w
    np.testing.assert_allclose(w.sum(axis=1), 1, **EXACT)
    np.testing.assert_allclose(dw, dw.T, **EXACT)
    # W is similar to D^-1/2 (D W) D^-1/2, which is symmetric: real eigenvalues, and in [0, 1]
    values = np.linalg.eigvalsh(dw / np.sqrt(np.outer(counts, counts)))
    assert values.min() > -1e-9
    assert values.max() < 1 + 1e-9


@some
@given(**CASE)
def test_constant_and_authors_are_symmetric(height, width, channels, radius, epsilon, kind, seed) -> None:
    guide = draw_guide(height, width, channels, kind, seed)
    constant, authors = (
        dense_weights(guide, radius=radius, epsilon=epsilon, border=border) for border in ("constant", "authors")
    )
    np.testing.assert_allclose(constant, constant.T, **EXACT)
    np.testing.assert_allclose(authors, authors.T, **EXACT)
    assert constant.sum(axis=1).max() < 1 + 1e-9


def test_authors_row_sums_leave_one_on_both_sides() -> None:
    sums = dense_weights(draw_guide(9, 9, 3, "extremes", 0), radius=2, border="authors").sum(axis=1).reshape(9, 9)
    assert sums[0, 0] < 0.5
    assert sums.max() > 1.01
    assert sums[4, 4] == pytest.approx(1, abs=1e-9)  # four pixels from the border: windows of windows are whole


def test_only_authors_depends_on_the_origin_of_the_colours() -> None:
    guide = draw_guide(5, 5, 3, "texture", 3)
    for border in BORDERS:
        w, shifted = (dense_weights(g, radius=1, border=border) for g in (guide, guide + 60))
        assert (np.abs(w - shifted).max() < 1e-9) == (border != "authors")


def test_entries_can_be_negative() -> None:
    assert dense_weights(draw_guide(6, 6, 3, "texture", 0), radius=2).min() < -0.005


@some
@given(**CASE)
def test_a_flat_guide_gives_two_box_means(height, width, channels, radius, epsilon, kind, seed) -> None:
    p = np.random.default_rng(seed).normal(size=(height, width, 2))
    guide = draw_guide(height, width, channels, "flat", seed)
    twice = box_mean(box_mean(p, radius=radius), radius=radius)
    np.testing.assert_allclose(guided_filter(p, guide, radius=radius, epsilon=epsilon), twice, **EXACT)


def test_radius_zero_and_constant_scores_are_left_alone() -> None:
    guide, p = draw_guide(4, 5, 3, "texture", 1), np.random.default_rng(0).normal(size=(4, 5, 2))
    for border in BORDERS[:2]:
        np.testing.assert_allclose(guided_filter(p, guide, radius=0, border=border), p, **EXACT)
    np.testing.assert_allclose(guided_filter(np.full_like(p, 7), guide, radius=2), 7, **EXACT)


def test_a_small_epsilon_reproduces_scores_that_are_colours() -> None:
    guide = draw_guide(6, 7, 1, "texture", 2)
    # eps over the variance of a window (thousands) is what the line misses
    np.testing.assert_allclose(
        guided_filter(guide / 255, guide, radius=2, epsilon=1e-6), guide / 255, rtol=0, atol=1e-7
    )


def test_defaults_are_radius_3_epsilon_1_clipped() -> None:
    guide, p = draw_guide(8, 9, 3, "texture", 4), np.random.default_rng(0).normal(size=(8, 9, 1))
    explicit = {"radius": 3, "epsilon": 1.0, "border": "clipped"}
    np.testing.assert_array_equal(guided_filter(p, guide), guided_filter(p, guide, **explicit))
    np.testing.assert_array_equal(dense_weights(guide), dense_weights(guide, **explicit))
    np.testing.assert_array_equal(guided_filter_adjoint(p, guide), guided_filter_adjoint(p, guide, **explicit))
    gradients = (guided_filter_guide_gradient(p, p, guide, **each) for each in ({}, explicit))
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("radius", {"radius": -1}),
        ("radius", {"radius": 1.5}),
        ("epsilon", {"epsilon": 0.0}),
        ("border", {"border": "reflect"}),
    ],
)
def test_bad_options_are_named(name: str, options: dict) -> None:
    for call in (
        lambda: dense_weights(np.zeros((2, 2, 3)), **options),
        lambda: guided_filter(np.zeros((2, 2, 1)), np.zeros((2, 2, 3)), **options),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            call()


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="guide: expected"):
        guided_filter(np.zeros((2, 3, 1)), np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="scores: expected"):
        guided_filter(np.zeros((2, 3)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="guide: expected a non-empty"):
        guided_filter(np.zeros((2, 3, 1)), np.zeros((2, 3)))
