r"""Training and judging: Eq. 17, hard mining, the SGD step, batch-norm recomputation, and mIoU (Sec. 6, 7.1)."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .arrays import IGNORE_LABEL, Array, Labels, Mask, as_labels, as_map, one_hot, require, softmax


def log_softmax(scores: Array) -> Array:
    """Return the logarithm of the softmax over the last axis, without the round-off of taking it afterwards."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def regularised_objective(
    scores: Sequence[Array], labels: Sequence[Labels], parameters: Mapping[str, Array], *, weight_decay: float = 1e-4
) -> float:
    r"""Return the objective that training decreases.

    .. math:: \theta^* = \arg\min_\theta \sum_I \sum_i -\log \hat{p}(x^*_i | I; \theta)
              + \frac{\text{weight decay}}{2} \lVert \theta \rVert_2^2 \qquad (17)

    - ``scores``: one (H, W, C) for each image; ``labels``: one (H, W) each, 255 ignored.

    The paper's formula lacks the minus, and calls the weight decay :math:`\lambda`, as it does Algorithm 1's weight.

    >>> regularised_objective([np.zeros((1, 2, 4))], [np.array([[3, 255]])], {})  # log 4
    1.3862943611198906
    """
    total = 0.0
    for image_scores, image_labels in zip(scores, labels, strict=True):
        log_p = log_softmax(as_map("scores", image_scores))
        image_labels = as_labels("labels", image_labels, log_p.shape[2])
        require(image_labels.shape == log_p.shape[:2], "labels", f"shape {log_p.shape[:2]}", image_labels.shape)
        for pixel in np.argwhere(image_labels != IGNORE_LABEL):
            total -= float(log_p[(*pixel, image_labels[tuple(pixel)])])
    return total + weight_decay / 2 * sum(float((theta**2).sum()) for theta in parameters.values())


def hard_pixels(truth: Array, valid: Mask, *, fraction: float = 0.5) -> Mask:
    r"""Return which pixels on-line hard example mining keeps: "half of all pixels in each
    batch with larger loss" (Sec. 7.1.2).

    - ``truth``: probability of the true class or its logarithm, any shape (the whole batch, not image by image);
      ``valid``: same shape.
    - the threshold is the k-th smallest probability, :math:`k = \max(1, \lfloor fraction \cdot valid \rfloor)`; pixels
      at or under it are kept, ties too.

    >>> hard_pixels(np.array([0.9, 0.2, 0.2, 0.4, 0.1]), np.array([True, True, True, True, False]))
    array([False,  True,  True, False, False])
    """
    require(0 < fraction <= 1, "fraction", "a number in (0, 1]", fraction)
    candidates = np.sort(truth[valid])
    if candidates.size == 0:
        return np.zeros_like(valid)
    k = max(1, int(np.floor(fraction * candidates.size)))
    return valid & (truth <= candidates[k - 1])


def hard_blocks(truth: Array, valid: Mask, *, fraction: float = 0.5, block: int = 4) -> Mask:
    r"""Return the pixels that the authors' code keeps: the decision falls on a stride-4 grid, in 4 x 4 blocks.

    ``truth`` and ``valid``: (N, H, W), as for :func:`hard_pixels`. Grid points are rows and columns 0, 4, 8, ...; a
    kept point keeps the valid pixels of its block. The threshold is the probability that follows the k smallest of the
    valid points, :math:`k = \lfloor fraction \cdot valid \rfloor`, and points *under* it are kept: ties with it are
    not, and of equal points alone none is. An ignored point decides nothing: the valid pixels of its block are kept.

    >>> truth, valid = np.array([[[0.9, 0.2, 0.4, 0.4]]]), np.array([[[True, True, True, False]]])
    >>> hard_blocks(truth, valid, block=1), hard_blocks(truth, valid, fraction=0.7, block=1)
    (array([[[False,  True, False, False]]]), array([[[False,  True,  True, False]]]))
    >>> hard_blocks(truth, np.array([[[False, True, True, True]]]), block=2)
    array([[[False,  True, False, False]]])
    """
    require(0 < fraction <= 1, "fraction", "a number in (0, 1]", fraction)
    point, decides = truth[:, ::block, ::block], valid[:, ::block, ::block]
    candidates = np.sort(point[decides])
    k = int(np.floor(fraction * candidates.size))
    threshold = candidates[k] if k < candidates.size else np.inf
    kept = ~decides | (point < threshold)
    spread = kept.repeat(block, axis=1).repeat(block, axis=2)[:, : truth.shape[1], : truth.shape[2]]
    return spread & valid


def mined_loss(
    scores: Array,
    labels: Labels,
    *,
    fraction: float = 0.5,
    mining: str = "pixel",
    ignore: int = IGNORE_LABEL,
    class_weights: Array | None = None,
) -> tuple[float, Array]:
    r"""Return the mean of -log p over the kept pixels of a batch, and its gradient with respect to the scores.

    .. math:: \frac{\sum_{i\ kept} w_{x^*_i} (-\log \hat{p}(x^*_i))}{\sum_{i\ kept} w_{x^*_i}}

    ``scores``: (N, H, W, C); ``labels``: (N, H, W); ``mining``: "pixel" (the text) or "block" (the code);
    ``fraction`` 1 keeps all. A batch without a valid pixel has loss 0 and gradient 0. Which pixels are kept is not
    differentiated. ``class_weights``: :math:`w`, (C,), above 0; all 1 if left out, as in the paper. They do not change
    which pixels are kept. The gradient of a kept pixel is :math:`w (q - p) / \sum w`.

    >>> loss, _ = mined_loss(np.zeros((1, 1, 2, 2)), np.array([[[0, 1]]]), class_weights=np.array([3.0, 1.0]))
    >>> loss  # log 2, whatever the weights: both pixels lose the same
    0.6931471805599453
    """
    labels = as_labels("labels", labels, scores.shape[-1], ignore=ignore)
    require(labels.shape == scores.shape[:-1], "labels", f"shape {scores.shape[:-1]}", labels.shape)
    rules = {"pixel": hard_pixels, "block": hard_blocks}
    require(mining in rules, "mining", f"one of {tuple(rules)}", mining)
    valid = labels != ignore
    p = one_hot(labels, scores.shape[-1])
    log_truth = (p * log_softmax(scores)).sum(axis=-1)
    kept = valid if fraction >= 1 else rules[mining](log_truth, valid, fraction=fraction)
    weights = np.ones(scores.shape[-1]) if class_weights is None else class_weights
    fit = np.shape(weights) == scores.shape[-1:] and bool((weights > 0).all())
    require(fit, "class_weights", f"{scores.shape[-1]} numbers above 0", weights)
    weight = kept * (p @ weights)
    total = weight.sum() if kept.any() else 1.0
    return float(-(weight * log_truth)[kept].sum() / total), weight[..., None] * (softmax(scores) - p) / total


def median_frequency_weights(labels: Sequence[Labels], classes: int) -> Array:
    r"""Return the class weights of median frequency balancing (Eigen and Fergus, 2015; used by SegNet), (C,).

    .. math:: w_c = \frac{\operatorname{median}_b f_b}{f_c}, \qquad
              f_c = \frac{\text{pixels of } c}{\text{pixels of the images in which } c \text{ occurs}}

    - ``labels``: one (H, W) for each training image; ignored pixels are not counted.
    - the median is over the classes that occur; one that does not has weight 1, which no pixel has a use for.

    >>> median_frequency_weights([np.array([[0, 0, 0, 1]]), np.array([[0, 0, 255, 255]])], 3).round(2)
    array([0.65, 2.17, 1.  ])
    """
    labels = [as_labels("labels", each, classes) for each in labels]
    frequency = np.full(classes, np.nan)
    for c in range(classes):
        images = [each[each != IGNORE_LABEL] for each in labels if (each == c).any()]
        if images:
            frequency[c] = sum((valid == c).sum() for valid in images) / sum(valid.size for valid in images)
    if np.isnan(frequency).all():
        return np.ones(classes)
    return np.where(np.isnan(frequency), 1.0, np.nanmedian(frequency) / frequency)


def poly_rate(step: int, *, steps: int, base: float = 0.01, power: float = 0.9) -> float:
    r"""Return :math:`base\, (1 - step / steps)^{power}`; the power is not in the paper but in the works it cites.

    >>> poly_rate(0, steps=10), poly_rate(10, steps=10)
    (0.01, 0.0)
    """
    return base * (1 - step / steps) ** power


def decay_group(name: str, parameter: Array, *, weight_decay: float = 1e-4) -> tuple[float, float]:
    """Return the learning-rate factor and the weight decay of a parameter.

    Weights: rate x1, decayed; biases: rate x2, not decayed (authors' code). What decay towards zero would harm is not
    decayed either: batch-norm scales, the CRF's weight and compatibility, the up-sampling brushes. These and the rings
    of feature context move at rate x0.1 (our choice: their many inputs or uses make a step at x1 too long).

    >>> decay_group("centre.weight", np.ones((4, 4))), decay_group("centre.bias", np.ones(4))
    ((1.0, 0.0001), (2.0, 0.0))
    """
    if name.endswith("bias"):
        return 2.0, 0.0
    if name.startswith("upsampling."):
        return 0.1, 0.0
    if name.startswith("ring."):
        return 0.1, weight_decay
    spared = np.ndim(parameter) < 2 or name.startswith("crf.")
    return 1.0, 0.0 if spared else weight_decay


def sgd_step(
    parameters: Mapping[str, Array],
    gradients: Mapping[str, Array],
    velocities: Mapping[str, Array],
    *,
    rate: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
) -> tuple[dict[str, Array], dict[str, Array]]:
    r"""Return parameters and velocities after one step of stochastic gradient descent with momentum.

    .. math:: v \leftarrow momentum \cdot v + (\nabla L + decay \cdot \theta), \qquad
              \theta \leftarrow \theta - rate \cdot v

    Start with all velocities zero. The authors' code keeps the rate inside v, as Caffe does: for a constant rate the
    two agree, under the poly schedule they do not (see the errata).
    """
    new_parameters, new_velocities = {}, {}
    for name, theta in parameters.items():
        factor, decay = decay_group(name, theta, weight_decay=weight_decay)
        new_velocities[name] = momentum * velocities[name] + gradients[name] + decay * theta
        new_parameters[name] = theta - rate * factor * new_velocities[name]
    return new_parameters, new_velocities


def recomputed_batch_norm(batches: Iterable[Array]) -> tuple[Array, Array]:
    """Return a batch-norm layer's mean and variance from passes "at the end of training stage" (Sec. 7.1.2).

    That the weights no longer change then is our reading. ``batches``: the layer's inputs (..., C), one array for each
    forward pass. Every pass weighs the same (a cumulative mean, not an exponential one); the variance is unbiased
    within a pass.
    """
    flat = [np.reshape(batch, (-1, np.shape(batch)[-1])) for batch in batches]
    means = [batch.mean(axis=0) for batch in flat]
    variances = [batch.var(axis=0, ddof=1) for batch in flat]
    return np.mean(means, axis=0), np.mean(variances, axis=0)


def confusion_matrix(truth: Labels, predicted: Labels, classes: int, *, ignore: int = IGNORE_LABEL) -> Labels:
    """Return how many valid pixels of true class a (rows) were predicted as b (columns), (C, C)."""
    truth = as_labels("truth", truth, classes, ignore=ignore)
    predicted = as_labels("predicted", predicted, classes, ignore=0)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for a, b in zip(truth.ravel(), predicted.ravel(), strict=True):
        if a != ignore:
            matrix[a, b] += 1
    return matrix


def intersection_over_union(confusion: Labels) -> Array:
    """Return TP / (TP + FP + FN) of every class over the whole set; NaN where truth and prediction both lack it.

    >>> intersection_over_union(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    array([0.75, 0.8 ,  nan])
    """
    hit = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hit
    return np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)


def mean_iou(confusion: Labels) -> float:
    """Return the mean IoU over the classes that occur in truth or prediction (the authors' divisor is a bug)."""
    iou = intersection_over_union(confusion)
    return float(iou[~np.isnan(iou)].mean()) if not np.isnan(iou).all() else float("nan")


def pixel_accuracy(confusion: Labels) -> float:
    """Return the share of valid pixels whose label is right; NaN if there is none."""
    return float(np.trace(confusion) / confusion.sum()) if confusion.sum() else float("nan")


def mean_accuracy(confusion: Labels) -> float:
    """Return the mean over the classes present in the truth of the share of their pixels that is right."""
    present = confusion.sum(axis=1)
    hit = np.diagonal(confusion)[present > 0]
    return float((hit / present[present > 0]).mean()) if hit.size else float("nan")
