r"""Context CRF: distance-aware pooling (Sec. 4.1, Fig. 3) and the messages of Eq. 9 and 10.

Context is grouped by its distance to the centre cell. The centre is read as it is; eight boxes at distance 6 are
averaged over 5 x 5 cells each, eight boxes at distance 12 over 9 x 9: the further, the larger, the fewer parameters a
cell. One box mean and one 3 x 3 convolution with holes compute a whole ring.

The authors' far ring reaches 12 + 4 cells to each side, a field of 33 x 33 where the paper says 28 x 28.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .arrays import Array, as_map, box_mean, convolution, require, softmax


class Ring(NamedTuple):
    """Nine boxes of side 2 radius + 1 whose centres are ``dilation`` cells apart; the middle one is the cell itself."""

    radius: int
    dilation: int

    def scaled(self, factor: int) -> "Ring":
        """Return the same ring on a map that is ``factor`` times finer."""
        return Ring(self.radius * factor, self.dilation * factor)


FEATURE_RINGS = (Ring(radius=2, dilation=6), Ring(radius=4, dilation=12))


def ring_boxes(ring: Ring) -> list[tuple[int, int, int, int]]:
    """Return the nine boxes (top, bottom, left, right) of a ring, inclusive and relative to the cell.

    >>> boxes = ring_boxes(Ring(radius=4, dilation=12))
    >>> {(bottom - top + 1) * (right - left + 1) for top, bottom, left, right in boxes}
    {81}
    >>> 2 * max(bottom for _, bottom, _, _ in boxes) + 1  # cells; Fig. 3 says 28
    33
    """
    (r, d), centres = ring, np.ndindex(3, 3)
    return [(d * (y - 1) - r, d * (y - 1) + r, d * (x - 1) - r, d * (x - 1) + r) for y, x in centres]


def ring_message_by_definition(x: Array, kernel: Array, *, ring: Ring) -> Array:
    """Return one ring's message, cell by cell and box by box; the literal form of :func:`ring_message`."""
    height, width, _ = x.shape
    out = np.zeros((height, width, kernel.shape[3]))
    for row, column in np.ndindex(height, width):
        for (top, bottom, left, right), tap in zip(ring_boxes(ring), np.ndindex(3, 3), strict=True):
            centre = row + (top + bottom) // 2, column + (left + right) // 2
            if 0 <= centre[0] < height and 0 <= centre[1] < width:  # a box centred outside the map says nothing
                box = x[max(row + top, 0) : row + bottom + 1, max(column + left, 0) : column + right + 1]
                out[row, column] += box.mean(axis=(0, 1)) @ kernel[tap]
    return out


def ring_message(x: Array, kernel: Array, *, ring: Ring) -> Array:
    r"""Return :math:`\sum_t K_t^T m_{p + d t}` with m the clipped box mean (Sec. 4.1, 7.3).

    ``x``: (H, W, D); ``kernel``: (3, 3, D, E); returns (H, W, E). The feature half of Eq. 10 is the sum of such
    messages on f, and predicts the C x n x n scores of Sec. 3.2 as the centre does.
    """
    return convolution(box_mean(as_map("x", x), radius=ring.radius), kernel, dilation=ring.dilation)


Clique = tuple[tuple[int, ...], Array]


def mean_field_update_by_definition(scores: Array, cliques: Sequence[Clique], q: Array) -> Array:
    r"""Return the decoupled scores of Eq. 9, enumerating every labelling of every clique.

    .. math:: \varphi^u_i(x_i) = \varphi_i(x_i, I_i)
              - \sum_c E_{\hat{p}(x_{c \backslash i})}[\psi_c(x_{c \backslash i}, x_i, I_c)] \qquad (9)

    - ``scores`` :math:`\varphi`: (N, L); ``q`` :math:`\hat{p}`: (N, L) marginals of the last iteration.
    - ``cliques``: pairs of member pixels (i, j, ...) and an energy table :math:`\psi_c` of shape (L,) * members.

    Open: Eq. 7 adds :math:`\psi`, Eq. 9 subtracts its expectation. Both are right if :math:`\varphi` is a score in
    Eq. 9 (a negative energy) and :math:`\psi` an energy.
    """
    updated = np.array(scores, dtype=np.float64)
    for members, psi in cliques:
        for labelling in np.ndindex(psi.shape):
            for position, i in enumerate(members):
                others = [q[j, x] for k, (j, x) in enumerate(zip(members, labelling, strict=True)) if k != position]
                updated[i, labelling[position]] -= np.prod(others) * psi[labelling]
    return updated


def mean_field_update(scores: Array, cliques: Sequence[Clique], q: Array) -> Array:
    """Return Eq. 9 with each clique table contracted by one marginal after the other, from the last axis on.

    >>> potts_pair = 1.0 - np.eye(2)
    >>> q = np.array([[1.0, 0.0], [0.25, 0.75]])
    >>> mean_field_update(np.zeros((2, 2)), [((0, 1), potts_pair)], q)  # each pixel hears what the other is not
    array([[-0.75, -0.25],
           [ 0.  , -1.  ]])
    """
    updated = np.array(scores, dtype=np.float64)
    for members, psi in cliques:
        for position, i in enumerate(members):
            expected = np.moveaxis(psi, position, 0)
            for j in reversed(members[:position] + members[position + 1 :]):
                expected = expected @ q[j]
            updated[i] -= expected
    return updated


def label_message_box_rings(
    scores: Array,
    ring_kernels: Sequence[Array],
    hidden_bias: Array,
    output_weight: Array,
    output_bias: Array,
    *,
    rings: Sequence[Ring],
) -> Array:
    r"""Return the learned message of Eq. 10 as the text has it: rings over the estimated probability map.

    .. math:: E_{\hat{p}(x_{c \backslash i})}[\psi_c(x_{c \backslash i}, x_i, I_c)]
              = U[\hat{p}(x_c), x_i, f_c] \qquad (10)

    - ``scores``: (H, W, C); :math:`\hat{p}` is their softmax. ``ring_kernels``: (3, 3, C, hidden) each, for ``rings``
      in cells of this map (the feature rings times n). ``output_weight``: (hidden, C). Returns scores to *add*: -U.

    The function U is linear in :math:`\hat{p}`, as is the expectation that it stands for: for pairwise cliques whose
    table depends on the offset only, Eq. 9 *is* a convolution of :math:`\hat{p}`, with the tables as its kernel.
    """
    p = softmax(as_map("scores", scores))
    require(len(ring_kernels) == len(rings), "ring_kernels", f"{len(rings)} kernels", len(ring_kernels))
    hidden = np.tile(hidden_bias, (*p.shape[:2], 1))
    for kernel, ring in zip(ring_kernels, rings, strict=True):
        hidden += ring_message(p, kernel, ring=ring)
    return hidden @ output_weight + output_bias


def normalised_max_pool(scores: Array, *, size: int) -> Array:
    r"""Return the authors' context feature: :math:`m / \sqrt{\sum_c m_c^2 + 10^{-5}}`, m the size x size maximum.

    Stride 1, odd ``size``, the window clipped at the border: the literal form, one window after the other.
    """
    require(size % 2 == 1, "size", "an odd number", size)
    scores = as_map("scores", scores)
    height, width, _ = scores.shape
    reach, out = size // 2, np.empty_like(scores)
    for row, column in np.ndindex(height, width):
        window = scores[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        out[row, column] = window.max(axis=(0, 1))
    return out / np.sqrt((out**2).sum(axis=2, keepdims=True) + 1e-5)


def label_message_max_pool(
    scores: Array,
    hidden_kernel: Array,
    hidden_bias: Array,
    output_weight: Array,
    output_bias: Array,
    *,
    pool: int = 25,
) -> Array:
    """Return the learned message of Eq. 10 as the authors' code has it, on max-pooled *scores*.

    ``hidden_kernel``: (7, 7, C, hidden); the rest as in :func:`label_message_box_rings`. No non-linearity in between.
    """
    pooled = normalised_max_pool(scores, size=pool)
    return (convolution(pooled, hidden_kernel) + hidden_bias) @ output_weight + output_bias
