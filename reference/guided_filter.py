r"""Guided filtering of a score map: Eq. 11, 12 and 16.

Three readings of Eq. 12 at the border, where a window holds fewer than :math:`|w|` pixels. They share one form,

.. math:: w_{ij} = \alpha_i \sum_{k:\, i, j \in w_k} \beta_k
          \left( 1 + (I_i - \mu_k)^T (\Sigma_k + \epsilon U)^{-1} (I_j - \mu_k) \right),

and differ in the divisors (:math:`n_k` pixels lie in window k):

=============  ==========================  ==================================  =================================
``border``     :math:`\alpha_i, \beta_k`   :math:`\mu_k, \Sigma_k` divided by  what holds
=============  ==========================  ==================================  =================================
``clipped``    :math:`1/n_i, 1/n_k`        :math:`n_k`                         rows sum to 1, D W symmetric
``constant``   :math:`1/(2r+1)^2` both     :math:`n_k`                         W symmetric, rows sum to at most 1
``authors``    :math:`1/a` both            :math:`a = \min(2r+1, H)            W symmetric, row sums anything,
                                           \min(2r+1, W)`                      depends on the guide's origin
=============  ==========================  ==================================  =================================

``clipped`` (He et al.) is the default: it alone keeps a constant map constant up to the border. Entries can be
negative: W is not an average. With :math:`D = diag(n_i)`, D W is symmetric positive semi-definite and the eigenvalues
of W lie in [0, 1]. ``constant`` is Eq. 12 to the letter. ``authors`` zero-pads the moments as well, like their code.

Eq. 12 as printed sums scalars over channels but divides by a 3 x 3 matrix; the quadratic form above is He et al.'s. It
asks for no particular number of channels.
"""

from typing import NamedTuple

import numpy as np

from .arrays import Array, as_map, box_sum, require, require_integer, window_counts

BORDERS = ("clipped", "constant", "authors")


def _divisors(height: int, width: int, radius: int, border: str) -> tuple[Array, Array, Array]:
    """Return alpha_i, beta_k and the divisor of the moments, each (H, W, 1)."""
    counts, ones = window_counts(height, width, radius=radius), np.ones((height, width, 1))
    side = 2 * radius + 1
    if border == "clipped":
        return 1 / counts, 1 / counts, counts
    if border == "constant":
        return ones / side**2, ones / side**2, counts
    area = min(side, height) * min(side, width)
    return ones / area, ones / area, ones * area


def _check(guide: Array, radius: int, epsilon: float, border: str) -> Array:
    guide = as_map("guide", guide)
    require_integer("radius", radius)
    require(0 < epsilon < np.inf, "epsilon", "a positive, finite number", epsilon)
    require(border in BORDERS, "border", f"one of {BORDERS}", border)
    return guide


def dense_weights(guide: Array, *, radius: int = 3, epsilon: float = 1.0, border: str = "clipped") -> Array:
    r"""Return the matrix W of Eq. 12 by its definition: a loop over windows, and over the pixels in them.

    .. math:: w_{ij} = \frac{1}{|w|^2} \sum_{k:\, i, j \in w_k}
              \left( 1 + (I_i - \mu_k)^T (\Sigma_k + \epsilon U)^{-1} (I_j - \mu_k) \right) \qquad (12)

    - ``guide`` I: (H, W, 3) colours in 0..255, (H, W, 1) grey values, or any other number of channels G.
    - ``radius`` 3 is the authors' code's; ``epsilon`` 1 is the paper's, for 0..255 (in 0..1 it would be 1/255^2).
    - :math:`w_k`: the window of side 2 radius + 1 around k; :math:`\mu_k, \Sigma_k`: its colour mean and covariance.
    - returns (H W, H W), rows i, columns j, pixels in reading order. ValueError for any bad argument.

    >>> W = dense_weights(np.arange(0.0, 250.0, 50.0).reshape(1, 5, 1), radius=2)  # a ramp: windows fit lines
    >>> np.allclose(W.sum(axis=1), 1), bool(W.min() < 0)
    (True, True)
    """
    guide = _check(guide, radius, epsilon, border)
    height, width, channels = guide.shape
    alpha, beta, divisor = (each.ravel() for each in _divisors(height, width, radius, border))
    colours = guide.reshape(-1, channels)
    weights = np.zeros((height * width, height * width))
    for k, (row, column) in enumerate(np.ndindex(height, width)):
        window = [
            y * width + x
            for y in range(max(row - radius, 0), min(row + radius + 1, height))
            for x in range(max(column - radius, 0), min(column + radius + 1, width))
        ]
        mean = sum(colours[j] for j in window) / divisor[k]
        second = sum(np.outer(colours[j], colours[j]) for j in window) / divisor[k]
        inverse = np.linalg.inv(second - np.outer(mean, mean) + epsilon * np.eye(channels))
        for i in window:
            for j in window:
                weights[i, j] += alpha[i] * beta[k] * (1 + (colours[i] - mean) @ inverse @ (colours[j] - mean))
    return weights


class _Moments(NamedTuple):
    """What the filter needs of the guide, computed once: (H, W, G) or as stated."""

    guide: Array  # centred where the border reading allows it
    mean: Array
    inverse: Array  # (Sigma_k + epsilon U)^-1, (H, W, G, G)
    alpha: Array  # (H, W, 1)
    beta: Array  # (H, W, 1)
    divisor: Array  # (H, W, 1)
    radius: int


def _moments(guide: Array, radius: int, epsilon: float, border: str) -> _Moments:
    guide = _check(guide, radius, epsilon, border)
    height, width, channels = guide.shape
    if border != "authors":  # the true moments do not care about the origin, and small numbers cancel less
        guide = guide - guide.mean(axis=(0, 1))
    alpha, beta, divisor = _divisors(height, width, radius, border)
    products = (guide[..., :, None] * guide[..., None, :]).reshape(height, width, channels**2)
    mean = box_sum(guide, radius=radius) / divisor
    second = (box_sum(products, radius=radius) / divisor).reshape(height, width, channels, channels)
    covariance = second - mean[..., :, None] * mean[..., None, :]
    inverse: Array = np.linalg.inv(covariance + epsilon * np.eye(channels)).astype(np.float64)
    return _Moments(guide, mean, inverse, alpha, beta, divisor, radius)


def _window_covariance(m: _Moments, p: Array) -> tuple[Array, Array]:
    """Return sum_j p_j (H, W, C) and sum_j (I_j - mu_k) p_j (H, W, G, C) over each window."""
    height, width, channels = m.guide.shape
    total = box_sum(p, radius=m.radius)
    product = box_sum((m.guide[..., :, None] * p[..., None, :]).reshape(height, width, -1), radius=m.radius)
    return total, product.reshape(height, width, channels, -1) - m.mean[..., :, None] * total[..., None, :]


def guided_filter(
    scores: Array, guide: Array, *, radius: int = 3, epsilon: float = 1.0, border: str = "clipped"
) -> Array:
    r"""Return W scores in linear time, whatever the radius: a handful of box sums.

    .. math:: g(x_i) = \sum_j w_{ij}(I)\, \varphi^{u\uparrow}_j(x_j) \qquad (11)

    Pull the sum over j inside the window: window k fits the line
    :math:`a_k^T (I_i - \mu_k) + b_k`, :math:`a_k = (\Sigma_k + \epsilon U)^{-1} \sum_j (I_j - \mu_k) p_j`, and pixel i
    sums the lines of all windows that hold it.

    - ``scores`` p: (H, W, C), any range (Algorithm 1 filters probabilities q where Eq. 11 prints potentials);
      ``guide``: (H, W, G), as above. Returns (H, W, C).

    A flat guide has :math:`\Sigma_k = 0`; the filter is then two box means, one after the other.

    >>> p = np.arange(12.0).reshape(3, 4, 1)
    >>> twice = box_sum(p, radius=9) / 12  # windows larger than the picture: the mean of everything
    >>> np.allclose(guided_filter(p, np.full((3, 4, 3), 80.0), radius=9), twice)
    True
    """
    scores = as_map("scores", scores)
    require(np.shape(scores)[:2] == np.shape(guide)[:2], "guide", f"(H, W) = {scores.shape[:2]}", np.shape(guide))
    m = _moments(guide, radius, epsilon, border)
    total, covariance = _window_covariance(m, scores)
    slope = m.beta[..., None] * (m.inverse @ covariance)
    offset = m.beta * total - np.einsum("hwgc,hwg->hwc", slope, m.mean)
    height, width, channels, labels = slope.shape
    slopes = box_sum(slope.reshape(height, width, -1), radius=radius).reshape(height, width, channels, labels)
    return m.alpha * (box_sum(offset, radius=radius) + np.einsum("hwgc,hwg->hwc", slopes, m.guide))


def guided_filter_adjoint(
    out_gradient: Array, guide: Array, *, radius: int = 3, epsilon: float = 1.0, border: str = "clipped"
) -> Array:
    r"""Return :math:`W^T` out_gradient: the exact backward pass of the filter.

    .. math:: \frac{\partial L}{\partial q}(x_j) = \sum_i w_{ij}(I) \frac{\partial L}{\partial g}(x_i) \qquad (16)

    The paper prints q and g the other way round and filters the error map as it is. That is exact for ``constant`` and
    ``authors``, whose W is symmetric. For ``clipped`` it is D W that is symmetric: :math:`W^T = D W D^{-1}`, so the
    counts divide before the filter and multiply after it. Near the border the columns sum to 0.4 to 1.4, not to 1.

    >>> guide, y = 255 * np.eye(4)[:, :, None], np.eye(4)[:, :, None]
    >>> dense = dense_weights(guide, radius=1).T @ y.ravel()
    >>> np.allclose(guided_filter_adjoint(y, guide, radius=1).ravel(), dense)
    True
    """
    out_gradient = as_map("out_gradient", out_gradient)
    counts = window_counts(*out_gradient.shape[:2], radius=radius) if border == "clipped" else 1.0
    return counts * guided_filter(out_gradient / counts, guide, radius=radius, epsilon=epsilon, border=border)


def guided_filter_guide_gradient(
    out_gradient: Array,
    scores: Array,
    guide: Array,
    *,
    radius: int = 3,
    epsilon: float = 1.0,
    border: str = "clipped",
) -> Array:
    r"""Return the gradient of <out_gradient, guided_filter(scores, guide)> with respect to the guide.

    With :math:`y_i = \alpha_i\, \partial L/\partial g_i` the loss is symmetric in p and y:

    .. math:: L = \sum_k \beta_k \left( P_k \cdot Y_k + \mathrm{tr}\,(\Sigma_k + \epsilon U)^{-1} C_k E_k^T \right),

    :math:`P_k, Y_k` sums and :math:`C_k, E_k` covariances (G x labels) of p and y in window k. What follows is the
    chain rule through the covariances, the means and the inverse (:math:`dA = -A\, d\Sigma\, A`). The paper needs no
    guide gradient; a guide that is itself predicted does.
    """
    m = _moments(guide, radius, epsilon, border)
    height, width = m.guide.shape[:2]
    y = m.alpha * out_gradient
    (p_total, p_covariance), (y_total, y_covariance) = (_window_covariance(m, each) for each in (scores, y))
    p_slope, y_slope = (m.beta[..., None] * (m.inverse @ each) for each in (p_covariance, y_covariance))
    sigma_gradient = -np.einsum("hwgc,hwfc->hwgf", m.inverse @ p_covariance, y_slope)
    sigma_gradient = sigma_gradient + sigma_gradient.swapaxes(2, 3)  # II^T carries each pair twice
    mean_gradient = (
        -np.einsum("hwc,hwgc->hwg", p_total, y_slope)
        - np.einsum("hwc,hwgc->hwg", y_total, p_slope)
        - np.einsum("hwgf,hwf->hwg", sigma_gradient, m.mean)
    )

    def gather(x: Array) -> Array:
        return box_sum(x.reshape(height, width, -1), radius=radius).reshape(x.shape)

    return (
        np.einsum("hwgc,hwc->hwg", gather(y_slope), scores)
        + np.einsum("hwgc,hwc->hwg", gather(p_slope), y)
        + np.einsum("hwgf,hwf->hwg", gather(sigma_gradient / m.divisor[..., None]), m.guide)
        + gather(mean_gradient / m.divisor)
    )
