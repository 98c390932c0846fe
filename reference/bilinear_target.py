r"""Belief and frequency: what a coarse cell is asked to predict (Sec. 3.1, Eq. 6, Fig. 1 and 2).

Coarse scores :math:`s_i` are up-sampled bilinearly, :math:`s^\uparrow_j = \sum_i w_{ij} s_i` with
:math:`\sum_i w_{ij} = 1`, and every fine pixel j has a one-hot truth :math:`p_j`. The paper calls the weighted label
histogram of a cell "the training target". Exactly, that is so for an upper bound of the loss:

(a) where the up-sampled loss is stationary, :math:`\sum_j w_{ij}\, \mathrm{softmax}(s^\uparrow_j) = \sum_j w_{ij} p_j`:
    the *average* prediction around a cell is the histogram, not the prediction of the cell itself;
(b) cross-entropy is convex in the scores, so :math:`\sum_j CE(s^\uparrow_j, p_j) \leq \sum_{ij} w_{ij} CE(s_i, p_j)`,
    and the right side falls apart into cells, each with the histogram as its minimiser: this is Eq. 6;
(c) the two minimisers differ, see :func:`fit_scores`;
(d) a target is one-hot exactly when the bilinear support of its cell holds one label: :func:`ambiguous_share`;
(e) whatever the features, C x n x n numbers a cell can say only so much: :func:`attainable_prediction`.
"""

import numpy as np

from .arrays import (
    IGNORE_LABEL,
    Array,
    Labels,
    bilinear_matrix,
    bilinear_upsample,
    bilinear_upsample_adjoint,
    one_hot,
    require,
    softmax,
)
from .objective import confusion_matrix, log_softmax, mean_iou


def coarse_targets_by_definition(p: Array, *, factor: int) -> Array:
    """Return the targets of Eq. 6, a loop over cells and the pixels around them."""
    rows, columns = (bilinear_matrix(size // factor, factor=factor) for size in p.shape[:2])
    targets = np.zeros((p.shape[0] // factor, p.shape[1] // factor, p.shape[2]))
    for i, k in np.ndindex(targets.shape[:2]):
        weights = np.outer(rows[:, i], columns[:, k])
        for y, x in np.ndindex(weights.shape):
            targets[i, k] += weights[y, x] * p[y, x]
        targets[i, k] /= targets[i, k].sum() or 1
    return targets


def coarse_targets(p: Array, *, factor: int) -> Array:
    r"""Return the target of every coarse cell: the bilinear-weighted label histogram of the pixels around it.

    .. math:: D(q_i \,\|\, \sum_j w_j p_i^j) \qquad (6)

    - ``p``: one-hot truth (f h, f w, L), zeros where it is ignored; ``factor`` f. Returns (h, w, L); rows sum to 1, or
      are zeros where every pixel is ignored.

    The paper prints the arguments the other way round: cross-entropy is KL(target || q) plus a constant, and KL(q || p)
    of a one-hot p would be infinite.

    >>> labels = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    >>> coarse_targets(one_hot(labels, 2).repeat(4, axis=0), factor=4)[0, :, 0]  # neither cell is sure
    array([0.71875, 0.03125])
    """
    require(p.shape[0] % factor == 0 == p.shape[1] % factor, "factor", f"a divisor of {p.shape[:2]}", factor)
    histogram = bilinear_upsample_adjoint(p, factor=factor)
    total = histogram.sum(axis=2, keepdims=True)
    return histogram / np.where(total > 0, total, 1)


def upsampled_loss(scores: Array, p: Array, *, factor: int) -> tuple[float, Array]:
    r"""Return :math:`\sum_j CE(s^\uparrow_j, p_j)` and its gradient with respect to the coarse scores.

    The gradient of cell i is :math:`\sum_j w_{ij} (\mathrm{softmax}(s^\uparrow_j) - p_j)`: point (a) where it vanishes.
    Ignored pixels, whose p is zero, are in neither.
    """
    fine = bilinear_upsample(scores, factor=factor)
    difference = softmax(fine) * p.sum(axis=2, keepdims=True) - p
    return -float((p * log_softmax(fine)).sum()), bilinear_upsample_adjoint(difference, factor=factor)


def decoupled_bound(scores: Array, p: Array, *, factor: int) -> float:
    r"""Return :math:`\sum_{ij} w_{ij} CE(s_i, p_j)`, the upper bound of point (b) whose minimiser is Eq. 6.

    >>> p = one_hot(np.arange(16).reshape(4, 4) // 5, 4)
    >>> scores = np.random.default_rng(0).normal(size=(2, 2, 4))
    >>> upsampled_loss(scores, p, factor=2)[0] <= decoupled_bound(scores, p, factor=2)
    True
    """
    return -float((bilinear_upsample_adjoint(p, factor=factor) * log_softmax(scores)).sum())


def fit_scores(p: Array, *, factor: int, steps: int = 500) -> Array:
    r"""Return coarse scores that minimise the up-sampled loss, by accelerated gradient descent from the histogram.

    The loss is convex and its curvature at most :math:`f^2/2` (W has norm at most f, the softmax 1/2), so a step of
    :math:`2/f^2` is safe. Point (c), three cells: the histogram of the first is 0.719, the best prediction 0.906.

    >>> p = one_hot(np.array([[0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1]]).repeat(4, axis=0), 2)
    >>> coarse_targets(p, factor=4)[0, :, 0].round(3)
    array([0.719, 0.125, 0.156])
    >>> softmax(fit_scores(p, factor=4))[0, :, 0].round(3)
    array([0.906, 0.016, 0.208])
    """
    scores = np.log(np.maximum(coarse_targets(p, factor=factor), 1e-3))
    ahead = scores
    for step in range(steps):
        previous = scores
        scores = ahead - 2 / factor**2 * upsampled_loss(ahead, p, factor=factor)[1]
        ahead = scores + step / (step + 3) * (scores - previous)
    return scores


def ambiguous_share_by_definition(labels: Labels, *, cell: int) -> float:
    """Return the share of cells with more than one label in their bilinear support, cell by cell."""
    rows, columns = (bilinear_matrix(size // cell, factor=cell) for size in labels.shape)
    ambiguous = []
    for i, k in np.ndindex(rows.shape[1], columns.shape[1]):
        seen = {int(labels[y, x]) for y in np.flatnonzero(rows[:, i]) for x in np.flatnonzero(columns[:, k])}
        ambiguous.append(len(seen - {IGNORE_LABEL}) > 1)
    return float(np.mean(ambiguous))


def ambiguous_share(labels: Labels, *, cell: int) -> float:
    """Return the share of cells whose target is not one-hot: point (d).

    ``labels``: (H, W) integers, both sides multiples of ``cell``, the pixels a score cell spans: 16 for a plain FCN,
    16 / n with n x n patch prediction, whose support shrinks accordingly. Ignored pixels belong to no target.

    >>> labels = np.tile(np.arange(64) // 32, (64, 1))
    >>> [ambiguous_share(labels, cell=16 // n) for n in (1, 2, 4)]  # a straight edge touches two columns of cells
    [0.5, 0.25, 0.125]
    """
    require(not any(side % cell for side in np.shape(labels)), "cell", f"a divisor of {np.shape(labels)}", cell)
    classes = np.setdiff1d(labels, [IGNORE_LABEL])
    weights = bilinear_upsample_adjoint((labels[..., None] == classes).astype(np.float64), factor=cell)
    return float(((weights > 0).sum(axis=2) > 1).mean())


def attainable_prediction(labels: Labels, classes: int, *, cell: int, steps: int = 500) -> Labels:
    """Return the labels that the best coarse scores we can find give after bilinear up-sampling: point (e).

    The scores are fitted to the truth itself, so no network with this output can be expected to do better: it would
    have to know the picture, and then say it through the same narrow door. Sides must be multiples of ``cell``.
    """
    return bilinear_upsample(fit_scores(one_hot(labels, classes), factor=cell, steps=steps), factor=cell).argmax(axis=2)


def attainable_iou(labels: Labels, classes: int, *, cell: int, steps: int = 500) -> float:
    """Return the mIoU of :func:`attainable_prediction`: a practical ceiling, found by convex fitting.

    (Maximising mIoU itself over the scores is combinatorial; the value returned is attained, hence a lower bound of the
    exact ceiling.)

    >>> stripes = np.tile(np.arange(16) // 2 % 2, (16, 1))  # two pixels wide
    >>> [round(attainable_iou(stripes, 2, cell=cell), 2) for cell in (4, 2)]
    [0.45, 1.0]
    """
    predicted = attainable_prediction(labels, classes, cell=cell, steps=steps)
    return mean_iou(confusion_matrix(labels, predicted, classes))
