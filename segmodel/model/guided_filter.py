"""The guided filter as a module for any model's scores (Eq. 11, 12), and the guide that an image gives."""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmodel.kernels import backend, guided_filter

BANDS = 16
"""Most channels of a guide."""
Ranges = tuple[float, float] | Sequence[tuple[float, float]]
"""Black and white of an image, or of each of its bands."""


def guide_from_image(image: Tensor, size: Sequence[int], image_range: Ranges) -> Tensor:
    """Area-average an N B H W image (1 to 16 bands) to ``size`` and map ``image_range`` to 0..255.

    Raises:
        ValueError: if the image is smaller than ``size``.
    """
    if not isinstance(image, Tensor):
        raise ValueError(f"image: expected a tensor, got {type(image).__name__}")
    if image.dim() != 4 or not 1 <= image.shape[1] <= BANDS:
        raise ValueError(f"image: expected N B H W of 1 to {BANDS} bands B, got shape {tuple(image.shape)}")
    if image.shape[2] < size[0] or image.shape[3] < size[1]:
        raise ValueError(f"image: expected at least {size[0]} x {size[1]} pixels, got {tuple(image.shape[2:])}")
    # Half precision would round 0..255 to whole colours, and the filter responds to smaller differences.
    image = image if image.dtype == torch.float64 else image.float()
    if tuple(image.shape[2:]) != tuple(size):
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            image = torch.ops.segmodel.area_mean(image, size[0], size[1])
        else:
            image = F.adaptive_avg_pool2d(image, (size[0], size[1]))
    return to_bytes(image, image_range)


def to_bytes(image: Tensor, image_range: Ranges) -> Tensor:
    """N B H W with ``image_range`` mapped to 0..255."""
    if isinstance(image_range[0], Sequence):
        low, high = image.new_tensor(image_range).T[..., None, None]
        return (image - low) * (255.0 / (high - low))
    low, high = cast(tuple[float, float], image_range)
    return image if (low, high) == (0, 255) else (image - low) * (255.0 / (high - low))


@torch.library.custom_op("segmodel::area_mean", mutates_args=())
def _area_mean(image: Tensor, height: int, width: int) -> Tensor:
    """``F.adaptive_avg_pool2d`` as one operator: torch.compile cannot lower PyTorch's own for sizes that vary."""
    return F.adaptive_avg_pool2d(image.contiguous(), (height, width))


@_area_mean.register_fake
def _(image: Tensor, height: int, width: int) -> Tensor:
    return image.new_empty((*image.shape[:2], height, width))


def _area_mean_setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _area_mean_backward(ctx, grad: Tensor):
    return torch.ops.aten._adaptive_avg_pool2d_backward(grad, ctx.saved_tensors[0]), None, None


_area_mean.register_autograd(_area_mean_backward, setup_context=_area_mean_setup)


def check_settings(radius: int, eps: float, border: str, image_range: Ranges) -> None:
    """The settings that both modules share, checked when they are made."""
    backend.check_window(radius, border)
    backend.check_eps(eps)
    check_range(image_range)


def check_range(image_range: Ranges, *, bands: int | None = None) -> None:
    """Black and white of an image, or of each of ``bands`` bands."""
    pairs = image_range if isinstance(image_range, Sequence) and len(image_range) else [image_range]
    pairs = pairs if isinstance(pairs[0], Sequence) else [image_range]
    if not all(_is_range(pair) for pair in pairs):
        raise ValueError(f"image_range: expected finite (low, high) with low < high, got {image_range!r}")
    if bands is not None and len(pairs) not in (1, bands):
        raise ValueError(f"image_range: expected (low, high), or one for each of {bands} bands, got {len(pairs)}")


def _is_range(pair: object) -> bool:
    return isinstance(pair, Sequence) and len(pair) == 2 and -math.inf < pair[0] < pair[1] < math.inf


class GuidedFilter(nn.Module):
    """Eq. 11 and 12: ``guided(scores, image)`` filters N L H W scores with an image, N B H W of 1 to 16 bands,
    at least as large.

    Args:
        radius, eps, border: see ``segmodel.kernels.guided_filter``.
        image_range: the values of the image's black and white, or a pair for each band; mapped to 0..255.
    """

    def __init__(
        self,
        *,
        radius: int = 3,
        eps: float = 1.0,
        image_range: Ranges = (0, 255),
        border: str = "clipped",
    ) -> None:
        super().__init__()
        check_settings(radius, eps, border, image_range)
        self.radius, self.eps, self.border = radius, eps, border
        self.image_range = image_range

    def forward(self, scores: Tensor, image: Tensor) -> Tensor:
        backend.check_map("scores", scores)
        guide = guide_from_image(image, scores.shape[-2:], self.image_range)
        return guided_filter(scores, guide, radius=self.radius, eps=self.eps, border=self.border)

    def extra_repr(self) -> str:
        return f"radius={self.radius}, eps={self.eps}, border={self.border!r}"
