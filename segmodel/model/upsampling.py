"""From a coarse grid to a finer one and back: learnable and fixed up-sampling, area means (Eq. 5)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def bilinear_kernel(factor: int) -> Tensor:
    """Weights ``(2 factor, 2 factor)`` with which a transposed convolution interpolates bilinearly."""
    position = torch.arange(2 * factor, dtype=torch.float64)
    profile = 1 - (position - (factor - 0.5)).abs() / factor
    return torch.outer(profile, profile)


class LearnableUpsampling(nn.Module):
    """Depthwise transposed convolution with bilinear initialisation (Eq. 5: "learnable parameters").

    Forward: ``(N, C, h, w)`` -> ``(N, C, factor h, factor w)``. The border is replicated first, so that the initial
    weights interpolate there too, exactly as ``torch.nn.functional.interpolate(..., align_corners=False)``.
    """

    def __init__(self, num_classes: int, factor: int):
        super().__init__()
        if factor % 2:
            raise ValueError(f"factor: expected an even number, got {factor}")
        self.factor = factor
        self.weight = nn.Parameter(bilinear_kernel(factor).float().repeat(num_classes, 1, 1, 1))

    def forward(self, scores: Tensor) -> Tensor:
        f = self.factor
        padded = _framed(scores)
        weight = self.weight.to(scores.dtype)  # a model of half precision has its scores in float32 by now
        return functional.conv_transpose2d(padded, weight, stride=f, padding=f // 2 + f, groups=scores.shape[1])


def _framed(x: Tensor) -> Tensor:
    """The border rows and columns once more around the map."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        # torch 2.13 compiles the gradient of replicate padding wrongly where channels lie last
        x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], -2)
        return torch.cat([x[..., :1], x, x[..., -1:]], -1)
    return functional.pad(x, (1, 1, 1, 1), mode="replicate")


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Fixed bilinear interpolation by a whole factor (half-pixel centres, clamped border)."""
    if factor == 1:
        return x
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def area_average(image: Tensor, factor: int) -> Tensor:
    """Mean over factor x factor blocks; the last row and column are repeated up to a whole block.

    Of an image of half precision it is float32: half would round the means to whole colours.
    """
    if factor == 1:
        return image
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    more = factor - 1  # always: pooling drops what fills no block, and an exported size stays a simple expression
    return functional.avg_pool2d(functional.pad(image, (0, more, 0, more), mode="replicate"), factor)
