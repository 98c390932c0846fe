r"""The guided filter (Eq. 11, 12) in linear time.

With S the box sum, D the window counts n, :math:`\mu` and :math:`\Sigma` the colour mean and covariance of every
(clipped) window, :math:`W = D^{-1} K` where

.. math:: a = (\Sigma + \epsilon U)^{-1} (S(I p) - \mu S(p)) / n, \quad b = S(p) / n - a^T \mu,
          \quad K p = I^T S(a) + S(b)

K is symmetric, so the exact adjoint is :math:`W^T = K D^{-1}`: the same filter with the counts on the other side.
With ``border="constant"`` both divisors n are the whole window area; the moments stay those of the clipped window.

W does not change when a constant is added to the guide, hence the image mean is subtracted first: it would cost
digits. The inverse is applied as L D L^T: products with an explicit inverse cancel badly on grey colour guides.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from . import backend as _backend
from .blocked_filter import blocked_filter
from .box_filter import box_mean
from .guide_moments import blocked_moments, standard_moments
from .guide_planes import MOST_CHANNELS, planes_of, split
from .registration import register

GUIDES = (torch.uint8, *_backend.FLOATS)


@dataclass(frozen=True)
class PreparedGuide:
    """What the filter needs of a guide, from :func:`prepare_guide`: its planes, see ``guide_planes``, and options."""

    planes: Tensor
    radius: int
    eps: float
    border: str


def prepare_guide(
    guide: Tensor, *, radius: int = 3, eps: float = 1.0, border: str = "clipped", backend: str = "auto"
) -> PreparedGuide:
    """Compute the window moments of a guide (Eq. 12).

    Args:
        guide: ``N C H W`` with 1 (grey), 3 (colour) or up to 16 channels in 0..255, uint8 or floating point.
        radius: window radius r (authors' code: 3, at quarter resolution).
        eps: added to the variances; 1 belongs to colours in 0..255 (Sec. 5). In float32 flat guides lose digits where
            it is far smaller: at 1e-6 the fourth.
        border, backend: those of :func:`guided_filter`.

    Raises:
        ValueError: on a wrong rank, dtype, channel count, radius, eps, border or backend.
    """
    radius, eps = check_guide(guide, radius, eps, border)
    backend = _backend.requested(backend)
    engine = _backend.choose(backend, guide)
    if composite(guide, backend):
        planes = standard_moments(guide, radius, eps)
    else:
        planes = torch.ops.segmodel.guide_moments(guide, radius, eps, engine)
    return PreparedGuide(planes, radius, eps, border)


def check_guide(guide: Tensor, radius: int, eps: float, border: str) -> tuple[int, float]:
    """The radius and eps, if all that describes a guide is right."""
    _backend.check_map("guide", guide, GUIDES)
    if guide.shape[1] > MOST_CHANNELS:
        raise ValueError(f"guide: expected 1 to {MOST_CHANNELS} channels, got {guide.shape[1]}")
    if guide.device.type == "mps":
        raise ValueError("guide: expected a CPU, CUDA or ROCm tensor, got mps, which has no float64 for its moments")
    return _backend.check_window(radius, border), _backend.check_eps(eps)


def composite(guide: Tensor, backend: str) -> bool:
    """Whether standard operators are wanted: while exporting, and for a guide that requires a gradient."""
    gradient = guide.requires_grad and torch.is_grad_enabled()
    if gradient and backend in ("triton", "numba"):
        advice = _backend.advice(backend)
        raise ValueError(f"backend: {backend!r} has no gradient for the guide; {advice}, or detach the guide")
    return gradient or torch.compiler.is_exporting()


def composite_filter(p: Tensor, guide: PreparedGuide) -> Tensor:
    """W p in standard operators, differentiable in p and in the planes of the guide."""
    colour, mean, lower, inverse = split(guide.planes.unsqueeze(2).transpose(0, 1))  # each [N, 1, H, W]
    box = partial(box_mean, radius=guide.radius, border=guide.border)
    box_p = box(p)
    forward: list[Tensor] = []
    for i in range(len(colour)):
        value = box(colour[i] * p) - mean[i] * box_p
        for j in range(i):
            value = value - lower[i, j] * forward[j]
        forward.append(value)
    slope, offset = [value * d for value, d in zip(forward, inverse, strict=True)], box_p
    result = torch.zeros_like(p)
    for i in reversed(range(len(colour))):
        for j in range(i + 1, len(colour)):
            slope[i] = slope[i] - lower[j, i] * slope[j]
        offset = offset - slope[i] * mean[i]
        result = result + colour[i] * box(slope[i])
    return result + box(offset)


def guide_for(
    scores: Tensor, guide: Tensor | PreparedGuide, radius: int, eps: float, border: str, backend: str
) -> PreparedGuide:
    """Prepare the guide in the statistics dtype of the scores, or check one that is prepared."""
    dtype = _backend.statistics_dtype(scores.dtype)
    if isinstance(guide, PreparedGuide):
        prepared = guide
    else:
        _backend.check_map("guide", guide, GUIDES)
        wide = guide.double() if dtype == torch.float64 else guide
        prepared = prepare_guide(wide, radius=radius, eps=eps, border=border, backend=backend)
    planes = prepared.planes
    _check_fit(scores, planes)
    if dtype == torch.float64 != planes.dtype:
        raise ValueError(f"guide: float64 scores need a guide prepared in float64, got {planes.dtype}")
    return PreparedGuide(planes.to(dtype), prepared.radius, prepared.eps, prepared.border)


def _check_fit(scores: Tensor, guide: Tensor) -> None:
    expected, got = (scores.shape[0], *scores.shape[2:]), (guide.shape[0], *guide.shape[2:])
    if expected != got:
        raise ValueError(f"guide: expected batch, height and width {expected} of the scores, got {got}")
    if guide.device != scores.device:
        raise ValueError(f"guide: expected device {scores.device} of the scores, got {guide.device}")


def _in_bands(scores: Tensor, guide: Tensor) -> bool:
    """Whether the planes of this guide are so many that numba computes them band by band; without a gradient."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and (scores.requires_grad or guide.requires_grad)):
        return False
    from .numba_guided_filter import LARGE

    return guide.dim() == 4 and planes_of(guide.shape[1]) * guide.shape[2] * guide.shape[3] > LARGE


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

    Twice differentiable in the scores. A guide that requires a gradient gets it, through slower standard operators; in
    float32 it errs by some thousandths where a window holds two flat colours.
    NaN and infinities propagate to every pixel whose windows hold one, and to no other label. How far beyond differs:
    with numba to all pixels below and to the right. ``torch.func.grad`` and forward mode raise.

    Args:
        scores: ``N C H W``, any strides, float16, bfloat16 (statistics in float32), float32 or float64.
        guide: ``N C H W``, 1 to 16 channels in 0..255 (colour: 3), or one prepared by :func:`prepare_guide`, which has
            ``radius``, ``eps`` and ``border`` already: those given here are not used then.
        radius, eps: those of :func:`prepare_guide`.
        border: "clipped" (true pixel counts; rows of W sum to 1) or "constant" (Eq. 12 to the letter).
        backend: "torch", "triton" (GPU), "numba" (CPU), or "auto": what SEGMODEL_BACKEND says, else Triton on a GPU and
            numba on a CPU, and torch where they cannot run.

    Returns a tensor of the shape and dtype of ``scores``.

    Raises:
        ValueError: on a wrong rank, shape, dtype, device, radius, eps, border or backend.
    """
    _backend.check_map("scores", scores)
    backend = _backend.requested(backend)
    engine = _backend.choose(backend, scores)
    if engine == "numba" and isinstance(guide, Tensor) and _in_bands(scores, guide):
        from .numba_guided_filter import filter_in_bands

        radius, eps = check_guide(guide, radius, eps, border)
        _check_fit(scores, guide)
        return filter_in_bands(scores, guide, radius, eps, border)
    prepared = guide_for(scores, guide, radius, eps, border, backend)
    planes = prepared.planes
    if composite(planes, backend):
        return composite_filter(scores.to(planes.dtype), prepared).to(scores.dtype)
    filter_op = torch.ops.segmodel.guided_filter
    return filter_op(scores, planes, prepared.radius, prepared.border, False, engine).to(scores.dtype)


def guide_moments(guide: Tensor, radius: int, eps: float, backend: str) -> Tensor:
    """The planes of a PreparedGuide on the backend that was chosen."""
    if backend == "triton":
        from .triton_moments import moments as triton_moments

        return triton_moments(guide, radius, eps)
    if backend == "numba":
        from .numba_guided_filter import moments as numba_moments

        return numba_moments(guide, radius, eps)
    return blocked_moments(guide, radius, eps)


def filter_planes(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool, backend: str) -> Tensor:
    """W p or W^T p on the backend that was chosen, without autograd."""
    if backend == "triton":
        from .triton_guided_filter import filter_planes as triton_filter

        return triton_filter(p, planes, radius, border, adjoint)
    if backend == "numba":
        from .numba_guided_filter import filter_planes as numba_filter

        return numba_filter(p, planes, radius, border, adjoint)
    return blocked_filter(p, planes, radius, border, adjoint)


def _fake_moments(guide: Tensor, radius: int, eps: float, backend: str) -> Tensor:
    shape = (guide.shape[0], planes_of(guide.shape[1]), *guide.shape[2:])
    return guide.new_empty(shape, dtype=_backend.statistics_dtype(guide.dtype))


def _fake_filter(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool, backend: str) -> Tensor:
    return torch.empty_like(p, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output) -> None:
    _, planes, ctx.radius, ctx.border, ctx.adjoint, ctx.backend = inputs
    ctx.save_for_backward(planes)


def _backward(ctx, grad: Tensor):
    (planes,) = ctx.saved_tensors
    scores = torch.ops.segmodel.guided_filter(grad, planes, ctx.radius, ctx.border, not ctx.adjoint, ctx.backend)
    return scores, None, None, None, None, None


register(guide_moments, "guide_moments", fake=_fake_moments)
register(filter_planes, "guided_filter", fake=_fake_filter, setup=_setup, backward=_backward)
