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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import backend as _backend
from .box_filter import box_sum
from .flat_planes import FlatPlanes, window_counts
from .guide_planes import MOST_CHANNELS, GuidePlanes, channels_of, inverse_at, planes_of, split

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
        guide: ``N 3 H W`` or ``N 1 H W``, colours in 0..255, uint8 or floating point.
        radius: window radius r (authors' code: 3, at quarter resolution).
        eps: added to the variances; 1 belongs to colours in 0..255 (Sec. 5). In float32 flat guides lose digits where
            it is far smaller: at 1e-6 the fourth.
        border, backend: those of :func:`guided_filter`.

    Raises:
        ValueError: on a wrong rank, dtype, channel count, radius, eps, border or backend.
    """
    _backend.check_map("guide", guide, GUIDES)
    _backend.check_window(radius, border)
    if guide.shape[1] > MOST_CHANNELS:
        raise ValueError(f"guide: expected 1 to {MOST_CHANNELS} channels, got {guide.shape[1]}")
    eps, backend = _backend.check_eps(eps), _backend.requested(backend)
    triton = _backend.use_triton(backend, guide)
    if composite(guide, backend, triton):
        # all at once: an exported program takes as long to load as it has operators
        planes = moments(guide, radius, eps, lambda planes: box_sum(torch.stack(planes), radius).unbind())
    else:
        planes = torch.ops.segmodel.guide_moments(guide, radius, eps, triton)
    return PreparedGuide(planes, radius, eps, border)


def composite(guide: Tensor, backend: str, triton: bool) -> bool:
    """Whether standard operators are wanted: while exporting, and for a guide that requires a gradient."""
    gradient = guide.requires_grad and torch.is_grad_enabled()
    if gradient and triton and backend == "triton":
        raise ValueError(f"backend: 'triton' has no gradient for the guide; {_backend.advice()}, or detach the guide")
    return gradient or torch.compiler.is_exporting()


def moments(guide: Tensor, radius: int, eps: float, box: Callable[[list[Tensor]], Sequence[Tensor]]) -> Tensor:
    """Window means and factorised covariances in float64: they are few, and every label depends on them."""
    dtype, guide = _backend.statistics_dtype(guide.dtype), guide.double()
    guide = guide - guide.mean(dim=(2, 3), keepdim=True)
    inverse = 1 / window_counts(guide, radius, "clipped")
    colours = list(guide.unbind(1))  # each [N, H, W]
    pairs = [(i, j) for i in range(len(colours)) for j in range(i + 1)]
    windows = [total * inverse for total in box([*colours, *(colours[i] * colours[j] for i, j in pairs)])]
    means, products = windows[: len(colours)], dict(zip(pairs, windows[len(colours) :], strict=True))
    lower: dict[tuple[int, int], Tensor] = {}
    diagonal: list[Tensor] = []
    for i, j in pairs:
        entry = products[i, j] - means[i] * means[j]
        for k in range(j):
            entry = entry - lower[i, k] * diagonal[k] * lower[j, k]
        if i == j:
            # At least eps with eps added; rounding may have left a flat window a variance below zero.
            diagonal.append((entry + eps).clamp(min=eps))
        else:
            lower[i, j] = entry / diagonal[j]
    return GuidePlanes(colours, means, lower, [1 / d for d in diagonal]).joined(dtype)


def composite_filter(p: Tensor, guide: PreparedGuide) -> Tensor:
    """W p in standard operators, differentiable in p and in the planes of the guide."""
    colour, mean, lower, inverse = split(guide.planes.unsqueeze(2).transpose(0, 1))  # each [N, 1, H, W]
    counts = window_counts(p, guide.radius, guide.border)
    box_p = box_sum(p, guide.radius) / counts
    forward: list[Tensor] = []
    for i in range(len(colour)):
        value = box_sum(colour[i] * p, guide.radius) / counts - mean[i] * box_p
        for j in range(i):
            value = value - lower[i, j] * forward[j]
        forward.append(value)
    slope, offset = [value * d for value, d in zip(forward, inverse, strict=True)], box_p
    result = torch.zeros_like(p)
    for i in reversed(range(len(colour))):
        for j in range(i + 1, len(colour)):
            slope[i] = slope[i] - lower[j, i] * slope[j]
        offset = offset - slope[i] * mean[i]
        result = result + colour[i] * box_sum(slope[i], guide.radius)
    return (result + box_sum(offset, guide.radius)) / counts


def blocked_filter(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p: the same sums, image after image and some labels at a time, so that they stay in the cache."""
    layout, channels = FlatPlanes(p.shape[-2], p.shape[-1], radius), channels_of(planes.shape[1])
    out = torch.empty_like(p, memory_format=torch.contiguous_format)
    inverse, one = 1 / window_counts(planes, radius, border), planes.new_ones(())
    before, after = (inverse, one) if adjoint else (one, inverse)
    block = layout.block(p.shape[1], p.device)
    buffers = [layout.padded(block, planes) for _ in range(2 + channels)]
    for image in range(p.shape[0]):
        factors = layout.spread(torch.cat([planes[image], inverse[None]]))
        factors[inverse_at(channels) : -1] *= factors[-1]  # 1 / D and 1 / n are applied as one
        for first in range(0, p.shape[1], block):
            labels = slice(first, first + block)
            source, target = p[image, labels], out[image, labels]
            views = [buffer[: len(source)] for buffer in buffers]
            torch.mul(source, before, out=layout.pixels(layout.core(views[0])))
            torch.mul(layout.pixels(_gram(views, factors, layout)), after, out=target)
    return out


def _gram(buffers: list[Tensor], factors: Tensor, layout: FlatPlanes) -> Tensor:
    """K p for the p in the first buffer; the others are for b and for each a. The zeros between rows stay zero."""
    p, b, *a = (layout.core(buffer) for buffer in buffers)
    colour, mean, lower, inverse = split(factors[:-1])
    total = layout.box_sum(buffers[0])
    forward: list[Tensor] = []
    for i in range(len(a)):
        torch.mul(p, colour[i], out=a[0])
        value = layout.box_sum(buffers[2]).addcmul_(total, mean[i], value=-1)
        for j in range(i):
            value.addcmul_(lower[i, j], forward[j], value=-1)
        forward.append(value)
    torch.mul(total, factors[-1], out=b)
    for i in reversed(range(len(a))):
        torch.mul(forward[i], inverse[i], out=a[i])
        for j in range(i + 1, len(a)):
            a[i].addcmul_(lower[j, i], a[j], value=-1)
        b.addcmul_(a[i], mean[i], value=-1)
    result = layout.box_sum(buffers[1])
    for i in range(len(a)):
        result.addcmul_(layout.box_sum(buffers[2 + i]), colour[i])
    return result


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
    expected, got = (scores.shape[0], *scores.shape[2:]), (planes.shape[0], *planes.shape[2:])
    if expected != got:
        raise ValueError(f"guide: expected batch, height and width {expected} of the scores, got {got}")
    if planes.device != scores.device:
        raise ValueError(f"guide: expected device {scores.device} of the scores, got {planes.device}")
    if dtype == torch.float64 != planes.dtype:
        raise ValueError(f"guide: float64 scores need a guide prepared in float64, got {planes.dtype}")
    return PreparedGuide(planes.to(dtype), prepared.radius, prepared.eps, prepared.border)


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
    NaN and infinities propagate, at least to every window that holds one. ``torch.func.grad`` and forward mode raise.

    Args:
        scores: ``N C H W``, any strides, float16, bfloat16 (statistics in float32), float32 or float64.
        guide: ``N 3 H W`` or ``N 1 H W`` with colours in 0..255, or one prepared by :func:`prepare_guide`, which has
            ``radius``, ``eps`` and ``border`` already: those given here are not used then.
        radius, eps: those of :func:`prepare_guide`.
        border: "clipped" (true pixel counts; rows of W sum to 1) or "constant" (Eq. 12 to the letter).
        backend: "torch", "triton", or "auto": what SEGMODEL_BACKEND says, else Triton where it can run on a GPU.

    Returns a tensor of the shape and dtype of ``scores``.

    Raises:
        ValueError: on a wrong rank, shape, dtype, device, radius, eps, border or backend.
    """
    _backend.check_map("scores", scores)
    backend = _backend.requested(backend)
    triton = _backend.use_triton(backend, scores)
    prepared = guide_for(scores, guide, radius, eps, border, backend)
    planes = prepared.planes
    if composite(planes, backend, triton):
        return composite_filter(scores.to(planes.dtype), prepared).to(scores.dtype)
    filter_op = torch.ops.segmodel.guided_filter
    return filter_op(scores, planes, prepared.radius, prepared.border, False, triton).to(scores.dtype)


@torch.library.custom_op("segmodel::guide_moments", mutates_args=())
def _guide_moments(guide: Tensor, radius: int, eps: float, triton: bool) -> Tensor:
    if triton:
        from .triton_moments import moments as triton_moments

        return triton_moments(guide, radius, eps)
    layout = FlatPlanes(guide.shape[2], guide.shape[3], radius)
    return moments(guide, radius, eps, lambda planes: [layout.clipped_sum(plane) for plane in planes])


@_guide_moments.register_fake
def _(guide: Tensor, radius: int, eps: float, triton: bool) -> Tensor:
    shape = (guide.shape[0], planes_of(guide.shape[1]), *guide.shape[2:])
    return guide.new_empty(shape, dtype=_backend.statistics_dtype(guide.dtype))


def filter_planes(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool, triton: bool) -> Tensor:
    """W p or W^T p on the backend that was chosen, without autograd."""
    if triton:
        from .triton_guided_filter import filter_planes as triton_filter

        return triton_filter(p, planes, radius, border, adjoint)
    return blocked_filter(p, planes, radius, border, adjoint)


_guided_filter = torch.library.custom_op("segmodel::guided_filter", filter_planes, mutates_args=())


@_guided_filter.register_fake
def _(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool, triton: bool) -> Tensor:
    return torch.empty_like(p, memory_format=torch.contiguous_format)


def _filter_setup(ctx, inputs, output) -> None:
    _, planes, ctx.radius, ctx.border, ctx.adjoint, ctx.triton = inputs
    ctx.save_for_backward(planes)


def _filter_backward(ctx, grad: Tensor):
    (planes,) = ctx.saved_tensors
    scores = torch.ops.segmodel.guided_filter(grad, planes, ctx.radius, ctx.border, not ctx.adjoint, ctx.triton)
    return scores, None, None, None, None, None


_guided_filter.register_autograd(_filter_backward, setup_context=_filter_setup)
for _device in ("cpu", "cuda"):
    _guide_moments.register_autocast(_device, torch.float32)
    _guided_filter.register_autocast(_device, torch.float32)
