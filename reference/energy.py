r"""The energies of Sec. 2, 4 and 5, exactly: Eq. 1, 2, 4, 5, 7, 8, 13, 14 and 15.

An :data:`Energy` is a function of one labelling, a tuple with one label for each pixel; the model's parameters and the
image are inside it. On a grid of N pixels and L labels there are :math:`L^N` labellings; for 2 x 2 pixels and three
labels that is 81, and everything the paper approximates can be enumerated. This is the oracle of the oracle.
"""

from collections.abc import Callable, Sequence

import numpy as np

from .arrays import Array, softmax
from .context_crf import Clique

Labelling = tuple[int, ...]
Energy = Callable[[Labelling], float]


def energy_table(energy: Energy, *, pixels: int, labels: int) -> Array:
    """Return E of every labelling as an array of shape (L,) * N: entry [x_1, ..., x_N] is the energy of x."""
    table = np.empty((labels,) * pixels)
    for x in np.ndindex(table.shape):
        table[x] = energy(x)
    return table


def log_partition_function(table: Array) -> float:
    r"""Return :math:`\ln Z(I; \theta) = \ln \sum_x e^{-E(x, I; \theta)}` over all :math:`L^N` labellings."""
    lowest = table.min()
    return float(np.log(np.exp(lowest - table).sum()) - lowest)


def gibbs_distribution(table: Array) -> Array:
    r"""Return the probability of every labelling, in the shape of the energy table.

    .. math:: P(x | I; \theta) = \frac{1}{Z(I; \theta)} e^{-E(x, I; \theta)} \qquad (1)

    >>> gibbs_distribution(np.array([[0.0, np.log(2)], [np.log(4), np.log(4)]]))
    array([[0.5  , 0.25 ],
           [0.125, 0.125]])
    """
    return np.exp(-table - log_partition_function(table))


def marginals(distribution: Array) -> Array:
    """Return P(x_i = l), shape (N, L): all other axes of the table summed away."""
    axes = range(distribution.ndim)
    return np.array([distribution.sum(axis=tuple(other for other in axes if other != i)) for i in axes])


def total_energy(local: Energy, context: Energy, edge: Energy) -> Energy:
    r"""Return the energy of the whole model.

    .. math:: E(x, I; \theta) = E_{local}(x, I; \theta) + E_{context}(x, I; \theta) + E_{edge}(x, I; \theta) \qquad (2)
    """
    return lambda x: local(x) + context(x) + edge(x)


def coarse_energy(local: Energy, context: Energy) -> Energy:
    r"""Return the energy of the coarse map, at 1/16 times n: labels and context, no edges yet.

    .. math:: E_u(x, I; \theta) = E_{local}(x, I; \theta) + E_{context}(x, I; \theta) \qquad (4)
    """
    return lambda x: local(x) + context(x)


def refined_energy(upsampled: Energy, edge: Energy) -> Energy:
    r"""Return the energy at the guidance CRF's resolution; ``upsampled`` is Eq. 13 of learnably up-sampled scores.

    .. math:: E(x, I; \theta) = E_u^{\uparrow}(x, I; \theta) + E_{edge}(x, I; \theta) \qquad (5)
    """
    return lambda x: upsampled(x) + edge(x)


def decoupled_energy(potentials: Array) -> Energy:
    r"""Return a sum of marginal potentials: pixels that know nothing of each other.

    .. math:: \sum_i \varphi_i(x_i, I_i) + \sum_c \psi_c(x_c, I_c) \approx \sum_i \varphi^u_i(x_i) \qquad (8)
    .. math:: E_u^{\uparrow}(x, I; \theta) = \sum_i \varphi^{u\uparrow}_i(x_i) \qquad (13)

    ``potentials``: (N, L) energies. What (8) buys: the marginals are one softmax a pixel.

    >>> potentials = np.array([[0.0, 1.0], [2.0, -1.0]])
    >>> exact = marginals(gibbs_distribution(energy_table(decoupled_energy(potentials), pixels=2, labels=2)))
    >>> np.allclose(exact, softmax(-potentials), rtol=0, atol=1e-15)
    True
    """
    return lambda x: float(sum(potentials[i, label] for i, label in enumerate(x)))


def context_energy(potentials: Array, cliques: Sequence[Clique]) -> Energy:
    r"""Return the energy of the context CRF: node potentials and high-order cliques.

    .. math:: E_u(x, I; \theta) = \sum_i \varphi_i(x_i, I_i; \theta) + \sum_c \psi_c(x_c, I_c; \theta) \qquad (7)

    ``cliques``: pairs of members (i, j, ...) and a table :math:`\psi_c` of shape (L,) * members.
    """
    alone = decoupled_energy(potentials)
    return lambda x: alone(x) + float(sum(psi[tuple(x[i] for i in members)] for members, psi in cliques))


def pairwise_potential(compatibility: Array, weights: Array) -> Array:
    r"""Return the pairwise energies of all pairs, (N, N, L, L).

    .. math:: \psi_p(x_i, x_j, I_i, I_j) = \mu(x_i, x_j)\, k(I_i, I_j), \qquad k(I_i, I_j) = w_{ij} \qquad (15)

    ``weights``: W of Eq. 12. Open: with clipped windows :math:`w_{ij} \neq w_{ji}` near the border, so the energy of a
    pair depends on which of the two is called i.
    """
    return np.einsum("ij,lm->ijlm", weights, compatibility)


def fully_connected_energy(potentials: Array, compatibility: Array, weights: Array) -> Energy:
    r"""Return the energy of the guidance CRF.

    .. math:: E(x) = \sum_i \varphi^{u\uparrow}_i(x_i) + \sum_{i < j} \psi_p(x_i, x_j, I_i, I_j) \qquad (14)

    Every unordered pair once and no pixel with itself. Algorithm 1 does neither: it hears all j, j = i too.
    """
    alone, pairs = decoupled_energy(potentials), pairwise_potential(compatibility, weights)
    return lambda x: alone(x) + float(sum(pairs[i, j, x[i], x[j]] for j in range(len(x)) for i in range(j)))


def free_energy(q: Array, table: Array) -> float:
    r"""Return :math:`\langle E \rangle_q + \langle \ln q \rangle_q` of independent pixels q (N, L), positive.

    It is at least :math:`-\ln Z`; the gap is KL(q || P), which mean field makes as small as independence allows.
    """
    product = np.ones(())
    for q_i in q:
        product = np.multiply.outer(product, q_i)
    return float((product * (table + np.log(product))).sum())


def mean_field(potentials: Array, pairs: Array, *, sweeps: int = 50) -> Array:
    r"""Return the mean field q (N, L) of Eq. 14, one pixel after the other: each update lowers the free energy.

    .. math:: q_i \propto \exp\left( -\varphi_i - \sum_{j > i} \psi_{ij} q_j - \sum_{j < i} \psi_{ji}^T q_j \right)

    ``pairs``: (N, N, L, L), read for i < j only. Algorithm 1 differs threefold: all pixels at once, W_ij for both
    orders of a pair, and the self-term :math:`w_{ii}`.
    """
    pixels = range(len(potentials))
    q = softmax(-potentials)
    for i in list(pixels) * sweeps:
        later = sum((pairs[i, j] @ q[j] for j in pixels if j > i), np.zeros_like(q[i]))
        earlier = sum((q[j] @ pairs[j, i] for j in pixels if j < i), np.zeros_like(q[i]))
        q[i] = softmax(-potentials[i] - later - earlier)
    return q
