r"""The small vocabulary that every page of the reference shares.

One image at a time, float64, channel last: scores, features and guides are ``(H, W, channels)``, label maps ``(H, W)``
integers. A *score* is a negative energy, so a softmax is always over ``+scores``.

Boxes, convolutions and bilinear up-sampling are linear, so each comes with its adjoint: the map :math:`A^T` with
:math:`\langle A x, y \rangle = \langle x, A^T y \rangle`, which is all that back-propagation needs.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]
IGNORE_LABEL = 255

Parameters = Mapping[str, Array]  # of the whole model, flat
Gradients = dict[str, Array]  # under the parameters' names
Pullback = Callable[[Array], tuple[Array, Gradients]]  # gradient of a value -> those of the input and the parameters


def as_map(name: str, value: ArrayLike) -> Array:
    """Return ``value`` as a non-empty float64 array (H, W, channels), or raise a ValueError that names it."""
    array = np.asarray(value, dtype=np.float64)
    require(array.ndim == 3 and array.size > 0, name, "a non-empty array (H, W, channels)", f"shape {array.shape}")
    return array


def as_labels(name: str, value: ArrayLike, classes: int, *, ignore: int = IGNORE_LABEL) -> Labels:
    """Return ``value`` as int64 labels in [0, classes) or equal to ``ignore``, or raise a ValueError that names it."""
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: expected integers, got {array.dtype}")
    wrong = array[((array < 0) | (array >= classes)) & (array != ignore)]
    if wrong.size:
        raise ValueError(f"{name}: expected labels in [0, {classes}) or {ignore}, got {wrong.flat[0]}")
    return array.astype(np.int64)


def require(condition: bool, name: str, expected: str, got: object) -> None:
    """Raise a ValueError that names the argument unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def require_integer(name: str, value: object) -> None:
    """Raise a ValueError that names the argument unless it is an integer >= 0."""
    require(isinstance(value, int | np.integer) and int(value) >= 0, name, "an integer >= 0", value)


def softmax(scores: ArrayLike) -> Array:
    r"""Return :math:`q_l = e^{s_l} / \sum_m e^{s_m}` over the last axis; any constant added to the scores drops out.

    >>> softmax([[0.0, np.log(3.0)]])
    array([[0.25, 0.75]])
    """
    scores = np.asarray(scores, dtype=np.float64)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def softmax_adjoint(q: Array, q_gradient: Array) -> Array:
    r"""Return :math:`\partial L/\partial s_l = q_l (\partial L/\partial q_l - \sum_m q_m \partial L/\partial q_m)`."""
    return q * (q_gradient - (q * q_gradient).sum(axis=-1, keepdims=True))


def one_hot(labels: Labels, classes: int) -> Array:
    """Return the one-hot vectors p of the labels along a new last axis; labels outside [0, classes) give zeros."""
    return (np.asarray(labels)[..., None] == np.arange(classes)).astype(np.float64)


def box_sum(x: Array, *, radius: int) -> Array:
    r"""Return :math:`\sum_{j \in w_k} x_j` over the window of side 2 radius + 1 around k, clipped at the border.

    Two cumulative sums: the cost does not depend on the radius. The map is symmetric, hence its own adjoint.

    >>> box_sum(np.ones((1, 4, 1)), radius=1)[0, :, 0]
    array([2., 3., 3., 2.])
    """
    for axis in (0, 1):
        size = x.shape[axis]
        total = np.concatenate([np.zeros_like(x.take([0], axis)), np.cumsum(x, axis)], axis)
        first, last = np.arange(size) - radius, np.arange(size) + radius + 1
        x = total.take(last.clip(max=size), axis) - total.take(first.clip(min=0), axis)
    return x


def window_counts(height: int, width: int, *, radius: int) -> Array:
    """Return the true number of pixels of each clipped window, (H, W, 1)."""
    return box_sum(np.ones((height, width, 1)), radius=radius)


def box_mean(x: Array, *, radius: int) -> Array:
    """Return the mean over each clipped window, divided by its true number of pixels."""
    return box_sum(x, radius=radius) / window_counts(*x.shape[:2], radius=radius)


def box_mean_adjoint(y: Array, *, radius: int) -> Array:
    """Return the adjoint of :func:`box_mean`: the counts now divide before the sum, not after it."""
    return box_sum(y / window_counts(*y.shape[:2], radius=radius), radius=radius)


def convolution(x: Array, kernel: Array, *, dilation: int = 1) -> Array:
    r"""Return :math:`y_p = \sum_t x_{p + d (t - c)} K_t`, zero outside the map, the map's size kept.

    ``x`` is (H, W, D), ``kernel`` (k, k, D, E) with odd k and centre c = (k - 1) / 2; the result is (H, W, E). As in
    every deep-learning library the kernel is not mirrored.

    >>> convolution(np.arange(3.0).reshape(1, 3, 1), np.eye(3)[:, :, None, None])[0, :, 0]
    array([0., 1., 2.])
    """
    taps = kernel.shape[0]
    require(kernel.shape[:3] == (taps, taps, x.shape[2]) and taps % 2 == 1, "kernel", "(odd k, k, D, E)", kernel.shape)
    height, width, reach = *x.shape[:2], dilation * (taps // 2)
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    out = np.zeros((height, width, kernel.shape[3]))
    for row, column in np.ndindex(taps, taps):
        top, left = dilation * row, dilation * column
        out += padded[top : top + height, left : left + width] @ kernel[row, column]
    return out


def convolution_gradients(x: Array, kernel: Array, out_gradient: Array, *, dilation: int = 1) -> tuple[Array, Array]:
    """Return the gradients of :func:`convolution` with respect to ``x`` and ``kernel``.

    The first is the convolution with the mirrored, channel-transposed kernel, the second a correlation.
    """
    mirrored = kernel[::-1, ::-1].swapaxes(2, 3)
    taps = kernel.shape[0]
    height, width, reach = *x.shape[:2], dilation * (taps // 2)
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    kernel_gradient = np.empty_like(kernel)
    for row, column in np.ndindex(taps, taps):
        shifted = padded[dilation * row :, dilation * column :][:height, :width]
        kernel_gradient[row, column] = np.einsum("yxd,yxe->de", shifted, out_gradient)
    return convolution(out_gradient, mirrored, dilation=dilation), kernel_gradient


def bilinear_matrix(size: int, *, factor: int) -> Array:
    r"""Return the (factor * size, size) matrix of linear interpolation with half-pixel centres and clamped borders.

    Fine pixel y has its centre at coarse coordinate :math:`(y + 1/2)/f - 1/2`. Rows sum to one. Two-dimensional
    bilinear up-sampling is one such matrix for the rows and one for the columns; its adjoint is their transposes.

    >>> bilinear_matrix(2, factor=2)
    array([[1.  , 0.  ],
           [0.75, 0.25],
           [0.25, 0.75],
           [0.  , 1.  ]])
    """
    position = ((np.arange(size * factor) + 0.5) / factor - 0.5).clip(0, size - 1)
    return (1 - abs(position[:, None] - np.arange(size))).clip(min=0)


def bilinear_upsample(x: Array, *, factor: int) -> Array:
    """Return ``x`` up-sampled bilinearly by ``factor`` (half-pixel centres, clamped borders)."""
    rows, columns = (bilinear_matrix(size, factor=factor) for size in x.shape[:2])
    return np.einsum("yi,xj,ijc->yxc", rows, columns, x, optimize=True)


def bilinear_upsample_adjoint(y: Array, *, factor: int) -> Array:
    """Return the adjoint of :func:`bilinear_upsample`: every fine value is handed back by its weights."""
    rows, columns = (bilinear_matrix(size // factor, factor=factor) for size in y.shape[:2])
    return np.einsum("yi,xj,yxc->ijc", rows, columns, y, optimize=True)
