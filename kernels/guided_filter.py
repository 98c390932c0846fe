r"""The guided filter (Eq. 11, 12) in linear time.

With S the box sum, n the window counts, :math:`\mu` and :math:`\Sigma` the colour mean and covariance of every
(clipped) window, :math:`W = D^{-1} K` where

.. math:: a = (\Sigma + \epsilon U)^{-1} (S(I p) - \mu S(p)) / n, \quad b = S(p) / n - a^T \mu,
          \quad K p = I^T S(a) + S(b)

K is symmetric, so the exact adjoint is :math:`W^T = K D^{-1}`: the same filter with the counts on the other side.
W does not change when a constant is added to the guide, hence the image mean is subtracted first: it would cost
digits. With ``border="constant"`` both divisors n are the whole window area; the moments stay those of the clipped
window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import backend as _backend
from .box_filter import box_sum, window_counts

GUIDES = (torch.uint8, *_backend.FLOATS)


@dataclass(frozen=True)
class PreparedGuide:
    """What the filter needs of a guide, computed once; make it with :func:`prepare_guide`.

    ``planes`` is N 12 H W for a colour guide and N 3 H W for a grey one: the guide minus its mean, the window means
    of that, then the factors L D L^T of (Sigma + eps U): the entries of L below the diagonal, row by row, and 1 / D.
    """

    planes: Tensor
    radius: int
    eps: float
    border: str


def prepare_guide(guide: Tensor, *, radius: int = 3, eps: float = 1.0, border: str = "clipped") -> PreparedGuide:
    """Compute the window moments of a guide (Eq. 12).

    Args:
        guide: ``N 3 H W`` or ``N 1 H W``, colours in 0..255, uint8 or floating point.
        radius: window radius (Sec. 5: 3 at quarter resolution).
        eps: added to the variances; 1 belongs to colours in 0..255 (Sec. 5).
        border: "clipped" or "constant".

    Raises:
        ValueError: on a wrong rank, dtype, channel count, radius, eps or border.
    """
    _backend.check_map("guide", guide, GUIDES)
    _backend.check_window(radius, border)
    if guide.shape[1] not in (1, 3):
        raise ValueError(f"guide: expected 3 (colour) or 1 (grey) channels, got {guide.shape[1]}")
    if not eps > 0:
        raise ValueError(f"eps: expected a number > 0, got {eps!r}")
    planes = _moments(guide, radius, float(eps))
    return PreparedGuide(planes.to(_backend.statistics_dtype(guide.dtype)), radius, float(eps), border)


def _moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """Window means and factorised covariances in float64: they are few, and every label depends on them."""
    guide = guide.double()
    guide = guide - guide.mean(dim=(2, 3), keepdim=True)
    counts = window_counts(guide, radius, "clipped")
    mean = box_sum(guide, radius) / counts
    channels = guide.shape[1]
    pairs = [(row, column) for row in range(channels) for column in range(row + 1)]
    products = torch.stack([guide[:, i] * guide[:, j] for i, j in pairs], dim=1)
    covariance = dict(zip(pairs, (box_sum(products, radius) / counts).unbind(1), strict=True))
    lower: dict[tuple[int, int], Tensor] = {}
    diagonal: list[Tensor] = []
    for i, j in pairs:
        entry = covariance[i, j] - mean[:, i] * mean[:, j]
        for k in range(j):
            entry = entry - lower[i, k] * diagonal[k] * lower[j, k]
        if i == j:
            # Rounding may leave a flat window a variance just below zero; it is at least eps with eps added.
            diagonal.append((entry + eps).clamp(min=eps))
        else:
            lower[i, j] = entry / diagonal[j]
    factors = [*lower.values(), *(1 / d for d in diagonal)]
    return torch.cat([guide, mean, torch.stack(factors, dim=1)], dim=1)


def gram(p: Tensor, guide: PreparedGuide) -> Tensor:
    """K p: the symmetric part of the filter, N C H W in the dtype of the planes."""
    channels = 3 if guide.planes.shape[1] == 12 else 1
    colour, mean, factors = guide.planes.split([channels, channels, guide.planes.shape[1] - 2 * channels], dim=1)
    factor = list(factors.unsqueeze(2).unbind(1))  # each [N, 1, H, W]
    lower, inverse = factor[:-channels], factor[-channels:]
    colours, means = colour.unsqueeze(2).unbind(1), mean.unsqueeze(2).unbind(1)
    counts = window_counts(p, guide.radius, guide.border)
    box_p = box_sum(p, guide.radius) / counts
    y = [box_sum(c * p, guide.radius) / counts - m * box_p for c, m in zip(colours, means, strict=True)]
    if channels == 3:
        y[1] = y[1] - lower[0] * y[0]
        y[2] = y[2] - lower[1] * y[0] - lower[2] * y[1]
    a = [value * d for value, d in zip(y, inverse, strict=True)]
    if channels == 3:
        a[1] = a[1] - lower[2] * a[2]
        a[0] = a[0] - lower[0] * a[1] - lower[1] * a[2]
    b = box_p - sum(slope * m for slope, m in zip(a, means, strict=True))
    return sum(c * box_sum(slope, guide.radius) for c, slope in zip(colours, a, strict=True)) + box_sum(b, guide.radius)


def guide_for(scores: Tensor, guide: Tensor | PreparedGuide, *, radius: int, eps: float, border: str) -> PreparedGuide:
    """Prepare the guide in the statistics dtype of the scores, or check one that is prepared."""
    dtype = _backend.statistics_dtype(scores.dtype)
    if isinstance(guide, PreparedGuide):
        prepared = guide
    else:
        _backend.check_map("guide", guide, GUIDES)
        prepared = prepare_guide(guide.to(dtype), radius=radius, eps=eps, border=border)
    size = (scores.shape[0], *scores.shape[2:])
    if (prepared.planes.shape[0], *prepared.planes.shape[2:]) != size:
        raise ValueError(
            f"guide: expected batch, height and width {size} of the scores, got "
            f"{(prepared.planes.shape[0], *prepared.planes.shape[2:])}"
        )
    if prepared.planes.device != scores.device:
        raise ValueError(f"guide: expected device {scores.device} of the scores, got {prepared.planes.device}")
    if prepared.planes.dtype != dtype:
        raise ValueError(f"guide: float64 scores need a guide prepared in float64, got {prepared.planes.dtype}")
    return prepared


def guided_filter(
    scores: Tensor,
    guide: Tensor | PreparedGuide,
    *,
    radius: int = 3,
    eps: float = 1.0,
    border: str = "clipped",
    backend: str = "auto",
) -> Tensor:
    r"""Filter every label with the same guide: :math:`g_i = \sum_j w_{ij}(I)\, p_j` (Eq. 11, 12).

    Args:
        scores: ``N C H W``, any strides, float16, bfloat16 (statistics in float32), float32 or float64.
        guide: ``N 3 H W`` or ``N 1 H W`` with colours in 0..255, or a guide prepared by :func:`prepare_guide`; then
            ``radius``, ``eps`` and ``border`` are those it was prepared with, and the arguments here are not used.
        radius: window radius r.
        eps: added to the variances of the colours.
        border: "clipped" (true pixel counts; rows of W sum to 1) or "constant" (Eq. 12 to the letter).
        backend: "auto", "torch" or "triton".

    Returns:
        A tensor of the shape and dtype of ``scores``.

    Raises:
        ValueError: on a wrong rank, shape, dtype, device, radius, eps, border or backend.
    """
    _backend.check_map("scores", scores)
    _backend.choose(backend, scores.device)
    prepared = guide_for(scores, guide, radius=radius, eps=eps, border=border)
    with torch.autocast(scores.device.type, enabled=False):
        return filter_with(scores.to(prepared.planes.dtype), prepared).to(scores.dtype)


def filter_with(p: Tensor, guide: PreparedGuide) -> Tensor:
    """W p in the statistics dtype."""
    return gram(p, guide) / window_counts(p, guide.radius, guide.border)
