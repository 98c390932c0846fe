r"""Structured patch prediction: Eq. 3 and Sec. 3.2.

A coarse cell does not speak with one C-vector for its whole 16 x 16 patch: it predicts n x n of them, which are then
laid out in space. This is what keeps the class scores from having to say *where* as well as *what*.
"""

import numpy as np

from .arrays import Array, as_map, require


def local_scores(features: Array, weight: Array, bias: Array, *, patch_size: int) -> Array:
    r"""Return the negative local energies :math:`-E_{local}` of every cell of a fine map.

    .. math:: f \mapsto E_{local} \qquad (3)

    One linear classifier for each of the n x n positions of the patch, then :func:`patch_rearrange`.

    - ``features`` f: (h, w, D), any range; ``weight``: (D, n n C); ``bias``: (n n C,).
    - returns scores (n h, n w, C).

    The paper draws the arrow only; a 1 x 1 convolution is Sec. 3.2's "C x n x n score map" from "the feature f_i".

    >>> local_scores(np.ones((1, 1, 1)), np.array([[0.0, 1.0, 2.0, 3.0]]), np.zeros(4), patch_size=2)[..., 0]
    array([[0., 1.],
           [2., 3.]])
    """
    features = as_map("features", features)
    return patch_rearrange(features @ weight + bias, patch_size=patch_size)


def patch_rearrange_by_loops(x: Array, *, patch_size: int) -> Array:
    r"""Return Sec. 3.2's rearrangement, cell by cell.

    .. math:: out[y, x, c] = in[\lfloor y/n \rfloor, \lfloor x/n \rfloor, m C + c]
    .. math:: m = (y \bmod n)\, n + (x \bmod n)

    The position m is the *outer* index of the channels (the authors' layout). ``torch.nn.PixelShuffle`` has the class
    outermost: the paper does not say, a trained network is the same up to a permutation, a loaded one is not.
    """
    n = patch_size
    height, width, classes = n * x.shape[0], n * x.shape[1], x.shape[2] // n**2
    out = np.empty((height, width, classes))
    for row, column in np.ndindex(height, width):
        m = (row % n) * n + column % n
        out[row, column] = x[row // n, column // n, m * classes : (m + 1) * classes]
    return out


def patch_rearrange(x: Array, *, patch_size: int) -> Array:
    """Lay the n n C channels of (h, w, n n C) out in space as (n h, n w, C); the computed form of the loops above.

    >>> patch_rearrange(np.arange(8.0).reshape(1, 1, 8), patch_size=2)[0, 1]  # position m = 1, classes 0 and 1
    array([2., 3.])
    """
    x = as_map("x", x)
    (height, width, channels), n = x.shape, patch_size
    require(n >= 1 and channels % n**2 == 0, "patch_size", f"n >= 1 with n * n dividing {channels} channels", n)
    split = x.reshape(height, width, n, n, channels // n**2)
    return split.transpose(0, 2, 1, 3, 4).reshape(n * height, n * width, channels // n**2)


def patch_rearrange_inverse(x: Array, *, patch_size: int) -> Array:
    """Return the inverse of :func:`patch_rearrange`; a permutation, so this is its adjoint too.

    >>> x = np.arange(24.0).reshape(2, 3, 4)
    >>> np.array_equal(patch_rearrange_inverse(patch_rearrange(x, patch_size=2), patch_size=2), x)
    True
    """
    x = as_map("x", x)
    (height, width, classes), n = x.shape, patch_size
    require(n >= 1 and height % n == 0 == width % n, "patch_size", f"a divisor of {height} and {width}", n)
    split = x.reshape(height // n, n, width // n, n, classes)
    return split.transpose(0, 2, 1, 3, 4).reshape(height // n, width // n, n * n * classes)
