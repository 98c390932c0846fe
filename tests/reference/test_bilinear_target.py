"""Sec. 3.1 and Eq. 6: points (a) to (e)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_tools import check_gradient, few, some

from segmodel.reference import bilinear_target
from segmodel.reference.arrays import bilinear_matrix, bilinear_upsample, bilinear_upsample_adjoint, one_hot, softmax
from segmodel.reference.objective import confusion_matrix, mean_iou

EXACT = {"rtol": 0, "atol": 1e-12}
CASE = {
    "height": st.integers(1, 3),
    "width": st.integers(1, 4),
    "factor": st.integers(1, 4),
    "classes": st.integers(1, 3),
    "seed": st.integers(0, 99),
}


def draw(height: int, width: int, factor: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (height * factor, width * factor))
    return one_hot(labels, classes), rng.normal(size=(height, width, classes))


@some
@given(**CASE)
def test_eq_6_by_loops(height, width, factor, classes, seed) -> None:
    p, _ = draw(height, width, factor, classes, seed)
    targets = bilinear_target.coarse_targets(p, factor=factor)
    literal = bilinear_target.coarse_targets_by_definition(p, factor=factor)
    np.testing.assert_allclose(targets, literal, **EXACT)
    np.testing.assert_allclose(targets.sum(axis=2), 1, **EXACT)
    weights = [bilinear_matrix(size, factor=factor) for size in (height, width)]
    for i, k in np.ndindex(height, width):
        w = np.outer(weights[0][:, i], weights[1][:, k])
        np.testing.assert_allclose(literal[i, k], (w[:, :, None] * p).sum(axis=(0, 1)) / w.sum(), **EXACT)


@some
@given(**CASE)
def test_the_loss_and_its_gradient(height, width, factor, classes, seed) -> None:
    p, scores = draw(height, width, factor, classes, seed)
    loss, gradient = bilinear_target.upsampled_loss(scores, p, factor=factor)
    q = softmax(bilinear_upsample(scores, factor=factor))
    assert loss == pytest.approx(-np.log((q * p).sum(axis=2)).sum(), abs=1e-11)
    check_gradient(lambda s: bilinear_target.upsampled_loss(s, p, factor=factor)[0], scores, gradient)


@some
@given(**CASE)
def test_ignored_pixels_are_in_neither_loss_nor_gradient_nor_target(height, width, factor, classes, seed) -> None:
    p, scores = draw(height, width, factor, classes, seed)
    kept = np.random.default_rng(seed).random(p.shape[:2]) < 0.6
    p *= kept[:, :, None]
    loss, gradient = bilinear_target.upsampled_loss(scores, p, factor=factor)
    q = softmax(bilinear_upsample(scores, factor=factor))
    assert loss == pytest.approx(-np.log((q * p).sum(axis=2)[kept]).sum(), abs=1e-11)
    check_gradient(lambda s: bilinear_target.upsampled_loss(s, p, factor=factor)[0], scores, gradient)
    targets = bilinear_target.coarse_targets(p, factor=factor)
    np.testing.assert_allclose(targets, bilinear_target.coarse_targets_by_definition(p, factor=factor), **EXACT)
    seen = bilinear_upsample_adjoint(kept[:, :, None].astype(float), factor=factor)[:, :, 0] > 0
    np.testing.assert_allclose(targets.sum(axis=2), seen, **EXACT)


def test_sides_that_are_no_multiple_of_the_cell() -> None:
    with pytest.raises(ValueError, match="cell: expected a divisor of"):
        bilinear_target.ambiguous_share(np.zeros((10, 10), int), cell=4)


@some
@given(**CASE)
def test_b_the_bound_decouples_and_its_minimiser_is_the_histogram(height, width, factor, classes, seed) -> None:
    p, scores = draw(height, width, factor, classes, seed)
    rows, columns = (bilinear_matrix(size, factor=factor) for size in (height, width))
    literal = 0.0
    for y, x, i, k in np.ndindex(height * factor, width * factor, height, width):
        literal += rows[y, i] * columns[x, k] * -np.log(softmax(scores[i, k]) @ p[y, x])
    bound = bilinear_target.decoupled_bound(scores, p, factor=factor)
    assert bound == pytest.approx(literal, abs=1e-10)
    assert bilinear_target.upsampled_loss(scores, p, factor=factor)[0] <= bound + 1e-10
    # at any other scores the bound is higher, by the Kullback-Leibler divergences to the histogram
    target = bilinear_target.coarse_targets(p, factor=factor)
    logs = np.where(target > 0, np.log(np.maximum(target, 1e-300)), -700)
    least = bilinear_target.decoupled_bound(logs, p, factor=factor)
    divergence = (target * (logs - np.log(softmax(scores)))).sum(axis=2)
    mass = np.outer(rows.sum(axis=0), columns.sum(axis=0))
    assert bound - least == pytest.approx((mass * divergence).sum(), abs=1e-9)


@settings(few, max_examples=8)
@given(**(CASE | {"classes": st.integers(2, 3)}))
def test_a_at_the_minimum_the_average_prediction_is_the_histogram(height, width, factor, classes, seed) -> None:
    p, _ = draw(height, width, factor, classes, seed)
    p = 0.8 * p + 0.2 / classes  # soft truths, so that the minimum is not at infinity
    scores = bilinear_target.fit_scores(p, factor=factor, steps=1000)
    q = softmax(bilinear_upsample(scores, factor=factor))
    left, right = (bilinear_upsample_adjoint(each, factor=factor) for each in (q, p))
    # 1000 steps of a method that converges like curvature / steps^2, from a start of order one
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * factor**2)


def test_c_the_minimiser_is_not_the_histogram() -> None:
    p = one_hot(np.array([[0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1]]).repeat(4, axis=0), 2)
    histogram = bilinear_target.coarse_targets(p, factor=4)
    scores = bilinear_target.fit_scores(p, factor=4)
    assert histogram[0, 0, 0] == 0.71875
    assert softmax(scores)[0, 0, 0] == pytest.approx(0.906, abs=1e-3)
    losses = [bilinear_target.upsampled_loss(s, p, factor=4)[0] for s in (scores, np.log(histogram))]
    assert losses[0] < losses[1] - 1


def test_fitting_beats_plain_gradient_descent_and_starts_at_the_histogram() -> None:
    p = one_hot(np.array([[0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1]]).repeat(4, axis=0), 2)
    histogram = np.log(np.maximum(bilinear_target.coarse_targets(p, factor=4), 1e-3))
    np.testing.assert_array_equal(bilinear_target.fit_scores(p, factor=4, steps=0), histogram)
    alone = bilinear_target.fit_scores(one_hot(np.zeros((4, 4), int), 2), factor=4, steps=0)
    np.testing.assert_array_equal(alone[0, 0], [0, np.log(1e-3)])  # the logarithm of nothing is cut off
    plain = histogram
    for _ in range(30):
        plain = plain - 2 / 16 * bilinear_target.upsampled_loss(plain, p, factor=4)[1]
    losses = [
        bilinear_target.upsampled_loss(s, p, factor=4)[0]
        for s in (bilinear_target.fit_scores(p, factor=4, steps=30), plain, histogram)
    ]
    assert losses == sorted(losses)
    default = bilinear_target.fit_scores(p, factor=4)
    np.testing.assert_array_equal(default, bilinear_target.fit_scores(p, factor=4, steps=500))


def test_accelerated_steps_by_hand() -> None:
    p, _ = draw(1, 2, 2, 2, 1)
    gradient = lambda s: bilinear_target.upsampled_loss(s, p, factor=2)[1]  # noqa: E731
    start = bilinear_target.fit_scores(p, factor=2, steps=0)
    first = start - gradient(start) / 2
    second = first - gradient(first) / 2  # the first momentum is 0 / 3
    ahead = second + 1 / 4 * (second - first)
    third = ahead - gradient(ahead) / 2
    np.testing.assert_allclose(bilinear_target.fit_scores(p, factor=2, steps=3), third, **EXACT)


@some
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_d_ambiguous_share_by_loops(height, width, cell, seed) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 0, 0, 0, 1, 255], (height * cell, width * cell))
    literal = bilinear_target.ambiguous_share_by_definition(labels, cell=cell)
    assert bilinear_target.ambiguous_share(labels, cell=cell) == literal
    p = one_hot(labels, 2)
    if (labels != 255).all():  # point (d): one-hot exactly where the support holds one label
        share = (bilinear_target.coarse_targets(p, factor=cell).max(axis=2) < 1 - 1e-12).mean()
        assert literal == pytest.approx(share)


def test_d_the_share_falls_with_the_patch_size() -> None:
    rows, columns = np.indices((64, 64))
    disc = ((rows - 30) ** 2 + (columns - 33) ** 2 < 400).astype(int)
    shares = [bilinear_target.ambiguous_share(disc, cell=16 // n) for n in (1, 2, 4)]
    assert shares[0] > 1.5 * shares[1] > 2 * shares[2] > 0


def test_e_the_ceiling_rises_with_the_patch_size() -> None:
    rows, columns = np.indices((48, 48))
    labels = ((rows - 20) ** 2 + (columns - 25) ** 2 < 200).astype(int) + 2 * (columns % 16 < 3)
    labels = np.minimum(labels, 2)
    ceilings = [bilinear_target.attainable_iou(labels, 3, cell=16 // n, steps=200) for n in (1, 2, 4)]
    assert ceilings[0] < ceilings[1] < ceilings[2] <= 1
    predicted = bilinear_target.attainable_prediction(labels, 3, cell=8, steps=200)
    assert ceilings[1] == mean_iou(confusion_matrix(labels, predicted, 3))
    assert bilinear_target.attainable_iou(labels, 3, cell=8) == bilinear_target.attainable_iou(
        labels, 3, cell=8, steps=500
    )


def test_the_factor_must_divide() -> None:
    for shape in ((4, 6, 1), (6, 4, 1)):
        with pytest.raises(ValueError, match="factor: expected a divisor of"):
            bilinear_target.coarse_targets(np.ones(shape), factor=4)
