r"""Context CRF: distance-aware pooling (Sec. 4.1, Fig. 3) and the messages of Eq. 9 and 10.

Context is grouped by its distance to the centre cell. The centre is read as it is; eight boxes at distance 6 are
averaged over 5 x 5 cells each, eight boxes at distance 12 over 9 x 9: the further, the larger, the fewer parameters a
cell. One box mean and one 3 x 3 convolution with holes compute a whole ring.

The authors' far ring reaches 12 + 4 cells to each side, a field of 33 x 33 where the paper says 28 x 28.

From ``ContextConfig`` on, the same once more as steps of the whole model (Fig. 4): each returns its value and its
*pullback*, a function that turns the gradient of the value into the gradients of what went in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .arrays import (
    Array,
    Gradients,
    Parameters,
    Pullback,
    as_map,
    box_mean,
    box_mean_adjoint,
    convolution,
    convolution_gradients,
    require,
    softmax,
    softmax_adjoint,
)
from .patch_prediction import patch_rearrange, patch_rearrange_inverse


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


@dataclass(frozen=True)
class ContextConfig:
    """The options of feature and label context; defaults are those of the authors' full model."""

    patch_size: int = 2  # n (Sec. 3.2); 1 is the plain classifier
    rings: tuple[Ring, ...] = FEATURE_RINGS  # () switches feature context off
    label_context: str = "max_pool"  # the code; "box_rings" is the text; "none"
    label_steps: int = 1  # mean-field steps, own weights each
    label_pool: int = 25

    def __post_init__(self) -> None:
        contexts = ("max_pool", "box_rings", "none")
        require(self.label_context in contexts, "label_context", f"one of {contexts}", self.label_context)


def linear(x: Array, parameters: Parameters, name: str) -> tuple[Array, Pullback]:
    """Return x weight + bias, a 1 x 1 convolution; parameters ``NAME.weight`` (D, E) and ``NAME.bias`` (E,)."""
    weight = parameters[f"{name}.weight"]

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        weight_gradient = np.einsum("yxd,yxe->de", x, gradient)
        gradients = {f"{name}.weight": weight_gradient, f"{name}.bias": gradient.sum(axis=(0, 1))}
        return gradient @ weight.T, gradients

    return x @ weight + parameters[f"{name}.bias"], pullback


def ring_sum(x: Array, parameters: Parameters, rings: Mapping[str, Ring]) -> tuple[Array, Pullback]:
    """Return the sum of ring messages (Sec. 4.1); ``rings`` maps a kernel's name to its ring, (k, k, D, E) each."""
    areas = {name: box_mean(x, radius=ring.radius) for name, ring in rings.items()}
    total = np.zeros((*x.shape[:2], 1))  # grows to E channels with the first ring
    for name, ring in rings.items():
        total = total + convolution(areas[name], parameters[name], dilation=ring.dilation)

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        x_gradient, gradients = np.zeros_like(x), {}
        for name, ring in rings.items():
            area_gradient, gradients[name] = convolution_gradients(
                areas[name], parameters[name], gradient, dilation=ring.dilation
            )
            x_gradient += box_mean_adjoint(area_gradient, radius=ring.radius)
        return x_gradient, gradients

    return total, pullback


def feature_context(features: Array, parameters: Parameters, config: ContextConfig) -> tuple[Array, Pullback]:
    """Return the scores s_0 (n h, n w, C): centre plus rings, summed, then laid out in space (Eq. 3, Sec. 3.2, 4.1).

    Parameters: ``centre.weight`` (D, n n C), ``centre.bias`` (n n C,), ``ring.R.weight`` (3, 3, D, n n C).
    """
    rings = {f"ring.{index}.weight": ring for index, ring in enumerate(config.rings)}
    centre, centre_pullback = linear(features, parameters, "centre")
    context, context_pullback = ring_sum(features, parameters, rings)

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        gradient = patch_rearrange_inverse(gradient, patch_size=config.patch_size)
        (a, a_gradients), (b, b_gradients) = centre_pullback(gradient), context_pullback(gradient)
        return a + b, a_gradients | b_gradients

    return patch_rearrange(centre + context, patch_size=config.patch_size), pullback


def max_pool(x: Array, *, size: int) -> tuple[Array, Pullback]:
    """Return the maximum over size x size windows, stride 1; the gradient goes to each window's first maximum."""
    (height, width, channels), reach = x.shape, size // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    winner = windows.reshape(height, width, channels, size**2).argmax(axis=3)
    rows, columns, depth = np.indices(x.shape)
    source = rows + winner // size - reach, columns + winner % size - reach, depth

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        x_gradient = np.zeros_like(x)
        np.add.at(x_gradient, source, gradient)
        return x_gradient, {}

    return x[source], pullback


def normalise(x: Array) -> tuple[Array, Pullback]:
    """Return x divided by its length over the channels, 1e-5 under the root (authors' code)."""
    length = np.sqrt((x**2).sum(axis=2, keepdims=True) + 1e-5)
    unit = x / length

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        return (gradient - unit * (unit * gradient).sum(axis=2, keepdims=True)) / length, {}

    return unit, pullback


def probabilities(scores: Array) -> tuple[Array, Pullback]:
    """Return the softmax of the scores: the estimated probability map of Eq. 10."""
    p = softmax(scores)
    return p, lambda gradient: (softmax_adjoint(p, gradient), {})


def label_message(scores: Array, parameters: Parameters, config: ContextConfig, step: int) -> tuple[Array, Pullback]:
    """Return the message -U of Eq. 10 of one mean-field step, in either reading.

    Parameters: ``label.T.hidden.weight`` (7, 7, C, hidden) for "max_pool", ``label.T.ring.R.weight``
    (3, 3, C, hidden) for "box_rings", whose radii and dilations are the feature rings' times n; for both
    ``label.T.hidden.bias``, ``label.T.output.weight`` (hidden, C) and ``label.T.output.bias``.
    """
    name = f"label.{step}"
    if config.label_context == "max_pool":
        pooled, pool_pullback = max_pool(scores, size=config.label_pool)
        context, context_pullback = normalise(pooled)
        rings = {f"{name}.hidden.weight": Ring(radius=0, dilation=1)}  # a plain convolution
    else:
        context, context_pullback = probabilities(scores)
        pool_pullback = None
        rings = {f"{name}.ring.{i}.weight": ring.scaled(config.patch_size) for i, ring in enumerate(config.rings)}
    hidden, hidden_pullback = ring_sum(context, parameters, rings)
    message, output_pullback = linear(hidden + parameters[f"{name}.hidden.bias"], parameters, f"{name}.output")

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        gradient, output_gradients = output_pullback(gradient)
        bias_gradient = {f"{name}.hidden.bias": gradient.sum(axis=(0, 1))}
        gradient, hidden_gradients = hidden_pullback(gradient)
        gradient, _ = context_pullback(gradient)
        if pool_pullback is not None:
            gradient, _ = pool_pullback(gradient)
        return gradient, output_gradients | bias_gradient | hidden_gradients

    return message, pullback


def context_crf(scores: Array, parameters: Parameters, config: ContextConfig) -> tuple[Array, Pullback]:
    r"""Return the decoupled scores :math:`s_T`, :math:`s_t = s_0 - U_t[\hat{p}(s_{t-1})]` (Eq. 4, 9)."""
    steps = 0 if config.label_context == "none" else config.label_steps
    estimate, pullbacks = scores, []
    for step in range(steps):
        message, message_pullback = label_message(estimate, parameters, config, step)
        pullbacks.append(message_pullback)
        estimate = scores + message

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        scores_gradient, gradients = np.zeros_like(scores), {}
        for message_pullback in reversed(pullbacks):
            scores_gradient += gradient
            gradient, step_gradients = message_pullback(gradient)
            gradients.update(step_gradients)
        return scores_gradient + gradient, gradients

    return estimate, pullback
