"""Algorithm 1: loops against linear time, Potts short cut, gradients by hand, and the functional that goes down."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import check_gradient, few, some

from segmodel.reference.arrays import softmax, window_counts
from segmodel.reference.guidance_crf import (
    guidance_crf,
    guidance_crf_by_definition,
    guidance_crf_gradients,
    guidance_crf_steps,
    guidance_functional,
    potts,
)
from segmodel.reference.guided_filter import BORDERS, dense_weights

# The filter errs by 1e-9 at most (see test_reference_guided_filter); a few iterations multiply that by the weight.
EXACT = {"rtol": 0, "atol": 1e-8}
CASE = {
    "height": st.integers(1, 4),
    "width": st.integers(1, 4),
    "labels": st.integers(1, 3),
    "radius": st.integers(0, 3),
    "iterations": st.integers(0, 3),
    "weight": st.sampled_from([0.0, 0.7, 2.0]),
    "border": st.sampled_from(BORDERS),
    "seed": st.integers(0, 99),
}


def draw(height: int, width: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, guide, an asymmetric compatibility, and the gradient of some loss."""
    rng = np.random.default_rng(seed)
    guide = rng.uniform(0, 255, (height, width, rng.choice([1, 3])))
    scores, out_gradient = rng.normal(size=(2, height, width, labels))
    return scores, guide, rng.normal(size=(labels, labels)), out_gradient


@some
@given(**CASE)
def test_loops_and_linear_time_agree(height, width, labels, radius, iterations, weight, border, seed) -> None:
    scores, guide, mu, _ = draw(height, width, labels, seed)
    options = {"weight": weight, "radius": radius, "iterations": iterations, "border": border}
    literal = guidance_crf_by_definition(scores, guide, compatibility=mu, **options)
    np.testing.assert_allclose(guidance_crf(scores, guide, compatibility=mu, **options), literal, **EXACT)


@some
@given(**CASE)
def test_potts_needs_no_matrix(height, width, labels, radius, iterations, weight, border, seed) -> None:
    scores, guide, _, _ = draw(height, width, labels, seed)
    options = {"weight": weight, "radius": radius, "iterations": iterations, "border": border}
    literal = guidance_crf_by_definition(scores, guide, compatibility=potts(labels), **options)
    np.testing.assert_allclose(guidance_crf(scores, guide, **options), literal, **EXACT)


@few
@given(**(CASE | {"border": st.sampled_from(BORDERS)}))
def test_gradients(height, width, labels, radius, iterations, weight, border, seed) -> None:
    scores, guide, mu, y = draw(height, width, labels, seed)
    options = {"radius": radius, "iterations": iterations, "border": border, "epsilon": 400.0}

    def loss(scores=scores, guide=guide, mu=mu, weight=weight) -> float:
        return float((guidance_crf(scores, guide, compatibility=mu, weight=float(weight), **options) * y).sum())

    found = guidance_crf_gradients(y, scores, guide, compatibility=mu, weight=weight, **options)
    check_gradient(lambda x: loss(scores=x), scores, found.scores)
    check_gradient(lambda x: loss(mu=x), mu, found.compatibility)
    check_gradient(lambda x: loss(weight=x), np.array(weight), np.array(found.weight))
    check_gradient(lambda x: loss(guide=x), guide, found.guide, step=1e-2)


def test_gradients_are_far_above_the_tolerance() -> None:
    scores, guide, mu, y = draw(5, 6, 3, 0)
    found = guidance_crf_gradients(y, scores, guide, compatibility=mu, radius=1, epsilon=400.0)
    for gradient in found:
        assert np.abs(gradient).max() > 1e-3


def test_gradients_without_a_compatibility_are_those_at_potts() -> None:
    scores, guide, _, y = draw(4, 5, 3, 1)
    short, explicit = (guidance_crf_gradients(y, scores, guide, compatibility=mu) for mu in (None, potts(3)))
    for a, b in zip(short, explicit, strict=True):
        np.testing.assert_allclose(a, b, **EXACT)


@pytest.mark.parametrize("compatibility", [None, np.ones((2, 2)) - 2 * np.eye(2)])
def test_defaults_are_the_authors(compatibility: np.ndarray | None) -> None:
    scores, guide, _, y = draw(9, 8, 2, 2)
    explicit = {"weight": 2.0, "radius": 3, "epsilon": 1.0, "iterations": 3, "border": "clipped"}
    mu = {"compatibility": compatibility}
    np.testing.assert_array_equal(guidance_crf(scores, guide, **mu), guidance_crf(scores, guide, **mu, **explicit))
    assert len(guidance_crf_steps(scores, guide, **mu)) == 4
    gradients = (guidance_crf_gradients(y, scores, guide, **mu, **each) for each in ({}, explicit))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_literal_form_has_the_same_defaults() -> None:
    scores, guide, mu, _ = draw(5, 4, 2, 3)
    literal = guidance_crf_by_definition(scores, guide, compatibility=mu)
    np.testing.assert_allclose(guidance_crf(scores, guide, compatibility=mu), literal, **EXACT)


def functional_by_definition(q, scores, guide, mu, weight, radius, epsilon=1.0) -> float:
    """F with the dense matrix and a loop for every sum."""
    w = dense_weights(guide, radius=radius, epsilon=epsilon)
    n = window_counts(*q.shape[:2], radius=radius).ravel()
    q, scores = q.reshape(len(n), -1), scores.reshape(len(n), -1)
    total = 0.0
    for i, each in enumerate(n):
        total += each * sum(-scores[i, a] * q[i, a] + q[i, a] * np.log(q[i, a]) for a in range(len(mu)))
        for j in range(len(n)):
            total += weight / 2 * each * w[i, j] * q[i] @ mu @ q[j]
    return float(total)


@few
@given(**CASE)
def test_the_functional_by_definition(height, width, labels, radius, iterations, weight, border, seed) -> None:
    scores, guide, mu, other = draw(height, width, labels, seed)
    q = softmax(other)
    options = {"weight": weight, "radius": radius, "epsilon": 2.0}
    found = guidance_functional(q, scores, guide, compatibility=mu, **options)
    assert found == pytest.approx(functional_by_definition(q, scores, guide, mu, **options), abs=1e-7)


def test_the_functional_has_the_authors_defaults_and_survives_a_zero() -> None:
    scores, guide, mu, _ = draw(5, 5, 2, 0)
    explicit = {"weight": 2.0, "radius": 3, "epsilon": 1.0}
    sure = np.zeros((5, 5, 2))
    sure[..., 0] = 1
    found = guidance_functional(sure, scores, guide, compatibility=mu)
    assert np.isfinite(found)
    assert found == guidance_functional(sure, scores, guide, compatibility=mu, **explicit)


@some
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 4), st.floats(0, 50), st.integers(0, 99))
def test_algorithm_1_decreases_the_functional(height, width, labels, radius, weight, seed) -> None:
    scores, guide, _, _ = draw(height, width, labels, seed)
    rng = np.random.default_rng(seed + 1)
    root = rng.normal(size=(labels, labels))
    u = rng.normal(size=labels)
    # minus a positive semi-definite matrix, plus u 1^T + 1 u^T, which vanishes on zero-sum vectors; Potts is such a one
    mu = potts(labels) if seed % 2 else -root @ root.T + u[:, None] + u[None, :]
    steps = guidance_crf_steps(
        scores, guide, compatibility=mu, weight=weight, radius=radius, iterations=8, border="clipped"
    )
    values = [
        guidance_functional(softmax(phi), scores, guide, compatibility=mu, weight=weight, radius=radius)
        for phi in steps
    ]
    # round-off of a sum of that size
    slack = 1e-11 * max(1.0, *(abs(value) for value in values))
    assert all(after <= before + slack for before, after in pairwise(values))


def test_nothing_is_promised_for_other_compatibilities() -> None:
    """With -Potts, neighbours that repel, parallel updates swing for ever: the functional goes up and down."""
    scores, guide = np.random.default_rng(0).normal(size=(4, 4, 2)) * 0.1, np.full((4, 4, 1), 9.0)
    mu = -potts(2)
    steps = guidance_crf_steps(scores, guide, compatibility=mu, weight=30.0, radius=1, iterations=12)
    values = [
        guidance_functional(softmax(phi), scores, guide, compatibility=mu, weight=30.0, radius=1) for phi in steps
    ]
    assert any(after > before + 1 for before, after in pairwise(values))


def test_no_iteration_returns_the_scores() -> None:
    scores, guide, mu, y = draw(3, 4, 2, 5)
    np.testing.assert_array_equal(guidance_crf(scores, guide, iterations=0), scores)
    found = guidance_crf_gradients(y, scores, guide, compatibility=mu, iterations=0)
    np.testing.assert_array_equal(found.scores, y)
    assert found.weight == 0
    assert not found.compatibility.any()
    assert not found.guide.any()


def test_bad_arguments_are_named() -> None:
    scores, guide = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    with pytest.raises(ValueError, match=r"compatibility: expected shape \(3, 3\), got \(2, 2\)"):
        guidance_crf(scores, guide, compatibility=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="iterations: expected an integer >= 0, got -1"):
        guidance_crf(scores, guide, iterations=-1)
    with pytest.raises(ValueError, match="scores: expected"):
        guidance_crf_by_definition(np.zeros((2, 2)), guide, compatibility=potts(2))
