r"""Algorithm 1, the guidance CRF: forward, backward by hand, and the functional that it decreases.

The paper writes :math:`q = e^{-\varphi}/Z` together with :math:`\varphi = \varphi^u - \lambda m`. With energies and a
Potts penalty mean field needs :math:`+\lambda m`. Read with *scores*, :math:`q = e^{+s}/Z` and
:math:`s = s^u - \lambda m`, both lines agree; so does the authors' code, and so does everything here.
"""

from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, as_map, require, require_integer, softmax, softmax_adjoint, window_counts
from .guided_filter import (
    dense_weights,
    guided_filter,
    guided_filter_adjoint,
    guided_filter_guide_gradient,
)


def potts(labels: int) -> Array:
    r"""Return the Potts compatibility :math:`\mu(l, l') = [l \neq l']`, the paper's initial value.

    >>> potts(2)
    array([[0., 1.],
           [1., 0.]])
    """
    return 1.0 - np.eye(labels)


def _check(scores: Array, compatibility: Array | None, iterations: int) -> Array:
    scores = as_map("scores", scores)
    labels = scores.shape[2]
    require_integer("iterations", iterations)
    if compatibility is not None:
        shape = np.shape(compatibility)
        require(shape == (labels, labels), "compatibility", f"shape ({labels}, {labels})", shape)
    return scores


def guidance_crf_by_definition(
    scores: Array,
    guide: Array,
    *,
    compatibility: Array,
    weight: float = 2.0,
    radius: int = 3,
    epsilon: float = 1.0,
    iterations: int = 3,
    border: str = "clipped",
) -> Array:
    """Return Algorithm 1 in its literal form: the dense matrix W, and a loop over pixels and labels for each line."""
    scores = _check(scores, compatibility, iterations)
    weights = dense_weights(guide, radius=radius, epsilon=epsilon, border=border)
    unary = scores.reshape(-1, scores.shape[2])
    pixels, labels = range(unary.shape[0]), range(unary.shape[1])
    phi = unary.copy()
    for _ in range(iterations):
        q = np.array([np.exp(phi[i] - phi[i].max()) / np.exp(phi[i] - phi[i].max()).sum() for i in pixels])
        g = np.array([sum(weights[i, j] * q[j] for j in pixels) for i in pixels])
        m = np.array([[sum(compatibility[a, b] * g[i, b] for b in labels) for a in labels] for i in pixels])
        phi = np.array([unary[i] - weight * m[i] for i in pixels])
    return phi.reshape(scores.shape)


def guidance_crf_steps(
    scores: Array,
    guide: Array,
    *,
    compatibility: Array | None = None,
    weight: float = 2.0,
    radius: int = 3,
    epsilon: float = 1.0,
    iterations: int = 3,
    border: str = "clipped",
) -> list[Array]:
    r"""Return the scores :math:`\varphi^0 = \varphi^u, \varphi^1, \ldots` of every iteration of Algorithm 1.

    .. math::
        q^k_i &= \mathrm{softmax}(\varphi^k_i) && \text{1. softmax} \\
        g^k_i &= \sum_j w_{ij}(I)\, q^k_j && \text{2. guided filtering} \\
        m^k_i(l) &= \sum_{l'} \mu(l, l')\, g^k_i(l') && \text{3. compatibility transform} \\
        \varphi^{k+1}_i &= \varphi^u_i - \lambda m^k_i && \text{4. local update}

    - ``scores``: (H, W, L) at the guide's resolution; ``guide``: (H, W, 3), in 0..255, area-averaged, or any (H, W, G).
    - ``compatibility`` :math:`\mu`: (L, L), or None for Potts without an L x L product: as every q sums to 1,
      :math:`m = W 1 - g`, and W 1 = 1 with clipped windows. ``weight`` :math:`\lambda` 2 is the authors' code's, three
      iterations are Sec. 5's; this :math:`\lambda` is not the weight decay of Eq. 17.

    >>> rng = np.random.default_rng(0)
    >>> scores, guide = rng.normal(size=(4, 5, 3)), rng.uniform(0, 255, (4, 5, 3))
    >>> short, explicit = (guidance_crf_steps(scores, guide, compatibility=mu)[-1] for mu in (None, potts(3)))
    >>> np.allclose(short, explicit, rtol=0, atol=1e-12)
    True
    """
    scores = _check(scores, compatibility, iterations)
    options: dict[str, Any] = {"radius": radius, "epsilon": epsilon, "border": border}
    row_sums = guided_filter(np.ones_like(scores[..., :1]), guide, **options)
    phi = [scores]
    for _ in range(iterations):
        g = guided_filter(softmax(phi[-1]), guide, **options)
        m = row_sums - g if compatibility is None else g @ np.transpose(compatibility)
        phi.append(scores - weight * m)
    return phi


def guidance_crf(scores: Array, guide: Array, **options: Any) -> Array:
    """Return the refined scores of Algorithm 1: the last of :func:`guidance_crf_steps`, whose options it takes."""
    return guidance_crf_steps(scores, guide, **options)[-1]


class GuidanceGradients(NamedTuple):
    """The gradients of a loss with respect to everything that Algorithm 1 reads."""

    scores: Array  # (H, W, L)
    compatibility: Array  # (L, L); at Potts where none was given
    weight: float
    guide: Array  # (H, W, G)


def guidance_crf_gradients(
    out_gradient: Array,
    scores: Array,
    guide: Array,
    *,
    compatibility: Array | None = None,
    weight: float = 2.0,
    radius: int = 3,
    epsilon: float = 1.0,
    iterations: int = 3,
    border: str = "clipped",
) -> GuidanceGradients:
    r"""Return the backward pass of :func:`guidance_crf`, by hand, iteration by iteration from the last to the first.

    With :math:`G = \partial L/\partial \varphi^{k+1}` and :math:`h = W^T G` (Eq. 16):

    .. math:: \frac{\partial L}{\partial \lambda} = -\langle G, m \rangle, \qquad
              \frac{\partial L}{\partial \mu} = -\lambda \sum_i G_i g_i^T, \qquad
              \frac{\partial L}{\partial q} = -\lambda\, h \mu

    Each adds up over the iterations; :math:`\varphi^u` receives every G, and what reaches :math:`\varphi^0` in the end.
    W acts on space and :math:`\mu` on labels, so the two commute.
    """
    phi = guidance_crf_steps(
        scores, guide, compatibility=compatibility, weight=weight, radius=radius, epsilon=epsilon,
        iterations=iterations, border=border,
    )  # fmt: skip
    mu = potts(phi[0].shape[2]) if compatibility is None else np.asarray(compatibility, dtype=np.float64)
    options: dict[str, Any] = {"radius": radius, "epsilon": epsilon, "border": border}
    gradient = np.asarray(out_gradient, dtype=np.float64)
    scores_gradient, mu_gradient = np.zeros_like(phi[0]), np.zeros_like(mu)
    weight_gradient, guide_gradient = 0.0, np.zeros(np.shape(guide))
    for before in reversed(phi[:-1]):
        q = softmax(before)
        g = guided_filter(q, guide, **options)
        scores_gradient += gradient
        weight_gradient -= float((gradient * (g @ mu.T)).sum())
        mu_gradient -= weight * np.einsum("hwl,hwm->lm", gradient, g)
        message_gradient = -weight * gradient @ mu
        guide_gradient += guided_filter_guide_gradient(message_gradient, q, guide, **options)
        gradient = softmax_adjoint(q, guided_filter_adjoint(message_gradient, guide, **options))
    return GuidanceGradients(scores_gradient + gradient, mu_gradient, weight_gradient, guide_gradient)


def guidance_functional(
    q: Array,
    scores: Array,
    guide: Array,
    *,
    compatibility: Array,
    weight: float = 2.0,
    radius: int = 3,
    epsilon: float = 1.0,
) -> float:
    r"""Return what Algorithm 1 decreases with clipped windows; ``q``: (H, W, L) with positive entries.

    .. math:: F(q) = \sum_i n_i \left( -\langle s_i, q_i \rangle + \sum_l q_{il} \ln q_{il} \right)
              + \frac{\lambda}{2} \sum_{l m} \mu_{lm}\, q_l^T D W q_m

    D W is positive semi-definite. If :math:`\lambda \geq 0` and :math:`\mu` is symmetric and negative semi-definite on
    zero-sum vectors (Potts is: there it acts as minus the identity), the second term is concave wherever every
    :math:`q_i` sums to 1. Replacing it by its tangent at :math:`q^k` gives an upper bound of F that touches F at
    :math:`q^k` and whose minimiser is :math:`q^{k+1} = \mathrm{softmax}(s - \lambda \mu W q^k)`: one iteration. Hence
    :math:`F(q^{k+1}) \leq F(q^k)` for every weight, however large (a concave-convex procedure).

    Nothing is promised otherwise: for :math:`-\mu`, say, parallel updates can swing for ever, and an asymmetric
    :math:`\mu` has no energy. Nor is F the free energy of Eq. 14: W has a diagonal, and Algorithm 1 keeps j = i.
    """
    counts = window_counts(*np.shape(q)[:2], radius=radius)
    entropy_and_unary = counts * q * (np.log(np.maximum(q, np.finfo(np.float64).tiny)) - scores)
    filtered = counts * guided_filter(q, guide, radius=radius, epsilon=epsilon)
    interaction = np.einsum("hwl,lm,hwm->", q, compatibility, filtered)
    return float(entropy_and_unary.sum() + weight / 2 * interaction)
