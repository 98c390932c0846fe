"""Depth, flow and other values that follow the image's edges: the guided filter alone (Eq. 11, 12)."""

import torch
from torch import Tensor
from torch.nn import functional

from segmodel.inference.guides import Ranges, image_tensor
from segmodel.inference.inputs import Array, Layout, check_layout, class_first, in_lists, like
from segmodel.inference.tensors import as_tensor, describe
from segmodel.kernels import guided_filter
from segmodel.kernels.backend import check_eps, check_window
from segmodel.kernels.box_filter import box_sum


@in_lists
def refine_map(
    values: Array,
    image: object,
    *,
    radius: int | None = None,
    eps: float = 1.0,
    layout: Layout | None = None,
    image_range: Ranges | None = None,
    image_layout: Layout | None = None,
) -> Array:
    """Values, such as depth, whose edges are the image's, at the image's size: no classes, no softmax.

    They are interpolated bilinearly to the image's size and filtered there: in every window a linear function of the
    colours is fitted to them. Of values at half the image's size or less, the result's means over the pixels of a
    value are then led back to it (one step), as the filter alone would soften. Differentiable for tensors.

    Args:
        values: ``(h, w)``, ``(K, h, w)`` (K maps of one image) or ``(N, K, h, w)``, floating point. NaN is missing:
            the fit is to the values that are there, and what lies more than two windows from any is NaN again.
        image: see ``refine``.
        radius: of the filter's window in pixels of the image (default: the image's pixels a value, at least 2).
        eps: epsilon of Eq. 12, for colours in 0..255; the larger, the smoother.
        layout, image_range, image_layout: see ``refine``.

    Returns:
        Values ``(..., H, W)`` of the same type and dtype.

    Raises:
        ValueError: on a shape, dtype, value range or setting that does not fit.
    """
    tensor = class_first(as_tensor("values", values), layout)
    shape = tensor.shape
    if tensor.ndim not in (2, 3, 4) or not tensor.is_floating_point() or 0 in shape:
        raise ValueError(f"values: expected floating point (h, w), (K, h, w) or (N, K, h, w), got {describe(values)}")
    if bool(tensor.detach().isinf().any()):
        raise ValueError("values: expected finite numbers, or NaN where one is missing, got infinities")
    pixels = image_tensor(image, image_range=image_range, layout=image_layout, device=tensor.device)
    size = pixels.shape[2:]
    if tensor.ndim > 2 and layout is None:
        check_layout("values", values, shape, size, least=1)
    batch = tensor.reshape(shape[0] if tensor.ndim == 4 else 1, -1, *shape[-2:])
    if len(batch) != len(pixels):
        raise ValueError(f"image: expected as many as values, {len(batch)}, got {len(pixels)}")
    if radius is None:
        radius = max(2, round(max(side / cells for side, cells in zip(size, shape[-2:], strict=True))))
    check_window(radius, "clipped")
    eps = check_eps(eps)
    result = _filtered(batch.to(torch.promote_types(tensor.dtype, torch.float32)), pixels, radius, eps)
    return like(result.reshape(*shape[:-2], *size), values, layout)


def _filtered(values: Tensor, image: Tensor, radius: int, eps: float) -> Tensor:
    """N K h w and N B H W -> N K H W."""
    there = ~values.isnan()
    zero = torch.where(there, values, 0).sum((2, 3), keepdim=True) / there.sum((2, 3), keepdim=True).clamp(min=1)
    values = torch.where(there, values - zero, 0)  # around 0: a large offset would cost digits
    guide, size = image.to(values.dtype), image.shape[2:]
    if bool(there.all()):
        result = guided_filter(_resized(values, size), guide, radius=radius, eps=eps)
    else:
        share = _resized(there.to(values.dtype), size)
        fine = torch.where(share > 0, _resized(values, size) / share.clamp(min=1e-6), 0)
        result = weighted_guided_filter(fine, guide, share, radius=radius, eps=eps)
    if all(2 * cells <= length for cells, length in zip(values.shape[2:], size, strict=True)):
        rest = values - functional.adaptive_avg_pool2d(result, (values.shape[2], values.shape[3]))
        result = result + _resized(torch.where(there & ~rest.isnan(), rest, 0), size)
    return result + zero


def _resized(values: Tensor, size: torch.Size) -> Tensor:
    smaller = values.shape[2] > size[0] or values.shape[3] > size[1]
    return functional.interpolate(values, size, mode="bilinear", align_corners=False, antialias=smaller)


def weighted_guided_filter(values: Tensor, guide: Tensor, weight: Tensor, *, radius: int, eps: float) -> Tensor:
    r"""The guided filter of values that count as much as their weight: NaN where no window holds any.

    In each window ``min sum_i w_i (a^T I_i + b - p_i)^2 + eps n a^T a``, n the sum of the weights; of the windows that
    hold a pixel, the mean weighted by n. With weights 1 it is Eq. 11 and 12 with the clipped border.

    Args:
        values, weight: ``N K H W``, the weights in 0..1. guide: ``N B H W``, 0..255.
    """
    bands, dtype = guide.shape[1], values.dtype
    guide = (guide - guide.mean((2, 3), keepdim=True)).double()
    maps = []
    for p, w in zip(values.double().unbind(1), weight.double().unbind(1), strict=True):  # each N H W
        p, w = p[:, None], w[:, None]
        inside = box_sum(torch.ones_like(w), radius)
        count = box_sum(w, radius)
        safe = count.clamp(min=1e-9)
        mean_i, mean_p = box_sum(w * guide, radius) / safe, box_sum(w * p, radius) / safe
        joint = box_sum(w * p * guide, radius) / safe - mean_p * mean_i
        pairs = (guide[:, :, None] * guide[:, None]).flatten(1, 2)
        second = (box_sum(w * pairs, radius) / safe).unflatten(1, (bands, bands)) - mean_i[:, :, None] * mean_i[:, None]
        system = second.permute(0, 3, 4, 1, 2) + eps * torch.eye(bands, dtype=torch.float64, device=guide.device)
        slope = torch.linalg.solve(system, joint.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        offset = mean_p - (slope * mean_i).sum(1, keepdim=True)
        share = count / inside
        total = box_sum(share, radius)
        mean = (guide * box_sum(share * slope, radius)).sum(1, keepdim=True) + box_sum(share * offset, radius)
        maps.append(torch.where(total > 1e-6, mean / total.clamp(min=1e-9), torch.nan))
    return torch.cat(maps, 1).to(dtype)
