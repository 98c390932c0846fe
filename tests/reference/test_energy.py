"""Eq. 1, 2, 4, 5, 7, 8, 13-15 by enumeration, and mean field against the exact marginals."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import few, some

from segmodel.reference import energy
from segmodel.reference.arrays import softmax
from segmodel.reference.context_crf import mean_field_update
from segmodel.reference.guidance_crf import potts
from segmodel.reference.guided_filter import dense_weights

# Sums over at most 4^4 labellings of exponentials.
EXACT = {"rtol": 1e-11, "atol": 1e-11}
SIZES = {"pixels": st.integers(1, 4), "labels": st.integers(1, 3), "seed": st.integers(0, 99)}


def draw(pixels: int, labels: int, seed: int):
    """Potentials, compatibility, weights of pairs, and two cliques."""
    rng = np.random.default_rng(seed)
    members = tuple(int(i) for i in rng.permutation(pixels)[:3])
    cliques = [(members, rng.normal(size=(labels,) * len(members))), ((0,), rng.normal(size=labels))]
    return (
        rng.normal(size=(pixels, labels)),
        rng.normal(size=(labels, labels)),
        rng.normal(size=(pixels, pixels)),
        cliques,
    )


@some
@given(**SIZES)
def test_eq_1_by_enumeration(pixels, labels, seed) -> None:
    phi, mu, w, _ = draw(pixels, labels, seed)
    function = energy.fully_connected_energy(phi, mu, w)
    table = energy.energy_table(function, pixels=pixels, labels=labels)
    assert table.shape == (labels,) * pixels
    z = sum(np.exp(-function(x)) for x in product(range(labels), repeat=pixels))
    assert energy.log_partition_function(table) == pytest.approx(np.log(z), abs=1e-11)
    distribution = energy.gibbs_distribution(table)
    for x in product(range(labels), repeat=pixels):
        assert distribution[x] == pytest.approx(np.exp(-function(x)) / z, abs=1e-12)
    q = energy.marginals(distribution)
    for i, label in np.ndindex(pixels, labels):
        expected = sum(distribution[x] for x in product(range(labels), repeat=pixels) if x[i] == label)
        assert q[i, label] == pytest.approx(expected, abs=1e-12)


def test_huge_energies_do_not_overflow() -> None:
    table = np.array([-1e5, -1e5 + np.log(3), 1e5])
    assert energy.log_partition_function(table) == pytest.approx(1e5 + np.log(4 / 3), rel=1e-14)
    np.testing.assert_allclose(energy.gibbs_distribution(table), [0.75, 0.25, 0], rtol=1e-9)


@some
@given(**SIZES)
def test_energies_by_their_formulas(pixels, labels, seed) -> None:
    phi, mu, w, cliques = draw(pixels, labels, seed)
    alone, context = energy.decoupled_energy(phi), energy.context_energy(phi, cliques)
    edge = energy.fully_connected_energy(np.zeros_like(phi), mu, w)
    for x in product(range(labels), repeat=pixels):
        unary = sum(phi[i, x[i]] for i in range(pixels))
        pairs = sum(mu[x[i], x[j]] * w[i, j] for i in range(pixels) for j in range(pixels) if i < j)
        high = sum(psi[tuple(x[i] for i in members)] for members, psi in cliques)
        assert alone(x) == pytest.approx(unary, abs=1e-12)
        assert context(x) == pytest.approx(unary + high, abs=1e-12)
        assert edge(x) == pytest.approx(pairs, abs=1e-12)
        assert energy.fully_connected_energy(phi, mu, w)(x) == pytest.approx(unary + pairs, abs=1e-12)
        assert energy.total_energy(alone, context, edge)(x) == pytest.approx(2 * unary + high + pairs, abs=1e-12)
        assert energy.coarse_energy(alone, context)(x) == pytest.approx(2 * unary + high, abs=1e-12)
        assert energy.refined_energy(alone, edge)(x) == pytest.approx(unary + pairs, abs=1e-12)


def test_eq_15_is_a_product() -> None:
    _, mu, w, _ = draw(3, 2, 0)
    psi = energy.pairwise_potential(mu, w)
    for i, j, a, b in np.ndindex(3, 3, 2, 2):
        assert psi[i, j, a, b] == mu[a, b] * w[i, j]


@some
@given(**SIZES)
def test_the_free_energy_bounds_the_partition_function(pixels, labels, seed) -> None:
    phi, mu, w, _ = draw(pixels, labels, seed)
    table = energy.energy_table(energy.fully_connected_energy(phi, mu, w), pixels=pixels, labels=labels)
    q = softmax(np.random.default_rng(seed).normal(size=(pixels, labels)))
    value = energy.free_energy(q, table)
    expected = 0.0
    for x in product(range(labels), repeat=pixels):
        share = np.prod([q[i, label] for i, label in enumerate(x)])
        expected += share * (table[x] + np.log(share))
    assert value == pytest.approx(expected, abs=1e-11)
    assert value >= -energy.log_partition_function(table) - 1e-11


@few
@given(**SIZES)
def test_mean_field_is_stationary_and_lowers_the_free_energy(pixels, labels, seed) -> None:
    phi, mu, w, _ = draw(pixels, labels, seed)
    pairs = energy.pairwise_potential(mu, w)
    table = energy.energy_table(energy.fully_connected_energy(phi, mu, w), pixels=pixels, labels=labels)
    values = [energy.free_energy(energy.mean_field(phi, pairs, sweeps=k), table) for k in range(6)]
    assert all(after <= before + 1e-11 for before, after in pairwise(values))
    assert values[-1] >= -energy.log_partition_function(table) - 1e-11
    # one sweep is Eq. 9 pixel by pixel, with the pairs as cliques
    cliques = [((i, j), pairs[i, j]) for j in range(pixels) for i in range(j)]
    q = softmax(-phi)
    for i in range(pixels):
        q[i] = softmax(mean_field_update(-phi, cliques, q)[i])
    np.testing.assert_allclose(energy.mean_field(phi, pairs, sweeps=1), q, **EXACT)


def test_mean_field_sweeps_until_nothing_moves() -> None:
    phi, mu, w, _ = draw(4, 3, 1)
    pairs = energy.pairwise_potential(0.3 * mu, w)
    q = energy.mean_field(phi, pairs)
    np.testing.assert_allclose(energy.mean_field(phi, pairs, sweeps=51), q, rtol=0, atol=1e-9)


def test_mean_field_is_close_to_the_exact_marginals_when_pairs_are_weak() -> None:
    rng = np.random.default_rng(0)
    phi, guide = rng.normal(size=(4, 2)), rng.uniform(0, 255, (2, 2, 3))
    w = dense_weights(guide, radius=1)
    for weight, bound in ((0.1, 1e-3), (1.0, 2e-2)):
        table = energy.energy_table(energy.fully_connected_energy(phi, weight * potts(2), w), pixels=4, labels=2)
        exact = energy.marginals(energy.gibbs_distribution(table))
        q = energy.mean_field(phi, energy.pairwise_potential(weight * potts(2), w))
        assert np.abs(q - exact).max() < bound
        assert np.abs(softmax(-phi) - exact).max() > np.abs(q - exact).max()
