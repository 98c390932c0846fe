"""Everything after the backbone: patch prediction, context CRF, up-sampling, guidance CRF (Sec. 3-5)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodel import kernels
from segmodel.guidance import GuidanceCRF
from segmodel.peers import PEERS

Rings = tuple[tuple[int, int], ...]
"""One (radius, dilation) a ring, in cells: the mean over a box of that radius, sampled at that distance."""


def ring_convolutions(inputs: int, outputs: int, rings: Rings) -> nn.ModuleList:
    """One dilated 3x3 convolution a ring (Sec. 4.1: the hole algorithm puts the pooled areas together)."""
    return nn.ModuleList(
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False) for _, dilation in rings
    )


def zero(conv: nn.Module) -> None:
    """Lets a convolution start at zero, bias included."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)


class FeatureContext(nn.Module):
    """Centre and rings of feature context: C x n x n scores a coarse cell (Sec. 3.2, Sec. 4.1, the f of Eq. 10).

    Forward: features ``(N, D, h, w)`` -> ``(N, n * n * C, h, w)``; ``rings=()`` leaves the centre, a plain classifier.
    The rings start at zero: their sum over nine times as many weights each would drown the centre's first steps.

    A ring is a dilated 3x3 convolution of box means. Means over places commute with a mix of channels, so that the
    mix comes first, and with few classes the means have fewer channels to go over: see ``ring_scores``.
    """

    def __init__(self, channels: int, num_classes: int, *, patch_size: int, rings: Rings):
        super().__init__()
        self.shapes = rings
        outputs = patch_size * patch_size * num_classes
        self.centre = nn.Conv2d(channels, outputs, 1)
        self.rings = ring_convolutions(channels, outputs, rings)
        zero(self.centre)
        if not self.centre.weight.is_meta:
            nn.init.normal_(self.centre.weight, std=0.01)
        for conv in self.rings:
            zero(conv)

    def forward(self, features: Tensor) -> Tensor:
        scores = self.centre(features)
        for conv, (radius, dilation) in zip(self.rings, self.shapes, strict=True):
            scores = scores + ring_scores(features, conv.get_parameter("weight"), radius=radius, dilation=dilation)
        return scores


def ring_scores(features: Tensor, weight: Tensor, *, radius: int, dilation: int) -> Tensor:
    """Zero-padded 3x3 convolution, dilated, of the clipped box means of features ``(N, D, h, w)``: ``(N, O, h, w)``.

    One matrix product gives what each of the nine taps ``weight (O, D, 3, 3)`` makes of each cell. Box and tap then act
    on rows and columns apart, as two small matrices: with 21 classes and D = 2048 less time than pooling D channels
    first, with 150 about the same.
    """
    outputs, height, width = weight.shape[0], features.shape[2], features.shape[3]
    taps = functional.conv2d(features, weight.permute(0, 2, 3, 1).reshape(9 * outputs, -1, 1, 1))
    dtype = torch.promote_types(taps.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        rows, columns = (ring_matrix(n, radius, dilation, taps.new_empty(0, dtype=dtype)) for n in (height, width))
        taps = taps.unflatten(1, (outputs, 3, 3)).permute(0, 4, 5, 3, 2, 1).to(dtype)  # N h w, x tap, y tap, O
        across = columns @ taps.reshape(-1, height, 3 * width, 3 * outputs)
        down = across.unflatten(3, (3, outputs)).transpose(2, 3).reshape(-1, 3 * height, width * outputs)
        scores = (rows @ down).unflatten(2, (width, outputs)).permute(0, 3, 1, 2)
    return scores.to(weight.dtype)


def ring_matrix(size: int, radius: int, dilation: int, like: Tensor) -> Tensor:
    """``(size, 3 size)``: entry (i, 3 j + k) is what place j weighs in the clipped mean around i + (k - 1) dilation."""
    places = torch.arange(size, device=like.device)
    centres = places[:, None] + dilation * torch.arange(-1, 2, device=like.device)
    inside = (centres >= 0) & (centres < size)
    near = inside[:, None] & ((centres[:, None] - places[:, None]).abs() <= radius)
    near = near.to(like.dtype)
    return (near / near.sum(1, keepdim=True).clamp(min=1)).flatten(1)


class MaxPoolLabelContext(nn.Module):
    """Message of the label context in the authors' code: scores, max-pooled, over their norm, 7x7, 1x1 (Eq. 10).

    Forward: scores ``(N, C, h, w)`` -> message ``(N, C, h, w)``. The last layer starts at zero: no message yet.
    """

    def __init__(self, num_classes: int, *, hidden: int, pool: int):
        super().__init__()
        # the maximum over a square is that over columns of that over rows: 2 x 25 comparisons instead of 625
        self.pool = nn.Sequential(
            nn.MaxPool2d((1, pool), stride=1, padding=(0, pool // 2)),
            nn.MaxPool2d((pool, 1), stride=1, padding=(pool // 2, 0)),
        )
        self.hidden = nn.Conv2d(num_classes, hidden, 7, padding=3)
        self.output = nn.Conv2d(hidden, num_classes, 1)
        zero(self.output)

    def forward(self, scores: Tensor) -> Tensor:
        pooled = self.pool(scores.contiguous(memory_format=torch.channels_last))  # a third of the time
        norm = (pooled.square().sum(1, keepdim=True) + 1e-5).sqrt()
        return self.output(self.hidden(pooled / norm))


class BoxRingLabelContext(nn.Module):
    """Message of the label context as the paper's text has it: rings of the estimated probability map (Eq. 10).

    Forward: scores ``(N, C, h, w)`` -> message ``(N, C, h, w)``. The last layer starts at zero: no message yet.
    """

    def __init__(self, num_classes: int, *, hidden: int, rings: Rings):
        super().__init__()
        self.radii = tuple(radius for radius, _ in rings)
        self.rings = ring_convolutions(num_classes, hidden, rings)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.output = nn.Conv2d(hidden, num_classes, 1)
        zero(self.output)

    def forward(self, scores: Tensor) -> Tensor:
        pooled = kernels.distance_aware_pool(scores.softmax(1), radii=self.radii)
        hidden = self.bias[:, None, None]
        for conv, area in zip(self.rings, pooled, strict=True):
            hidden = hidden + conv(area)
        return self.output(hidden)


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


class SegmentationHead(nn.Module):
    """The whole head. Features ``(N, D, h, w)`` and image ``(N, 3, H, W)`` in 0..255 -> scores ``(N, C, H, W)``.

    Args:
        channels: D. num_classes: C. stride: pixels a feature cell. patch_size: n of Sec. 3.2, a divisor of stride.
        kind: "segmodel", or a peer of another paper in the place of patch prediction: "aspp", "ppm" (patch_size 1).
        rings: (radius, dilation) of each ring of feature context; () for none.
        label_context: "max_pool" (authors' code), "box_rings" (the paper's text) or "none".
        label_steps: mean-field steps of the context CRF, each with own weights.
        label_hidden, label_pool: width of the message's hidden layer; side of the max-pool window.
        upsampling: "learnable" or "bilinear", from stride / n to the guidance CRF's resolution.
        guidance: "joint" (trained), "inference" (added in evaluation mode only) or "off".
        guidance_radius, guidance_eps, guidance_weight, guidance_iterations: see ``segmodel.GuidanceCRF``.
        learn_compatibility: train the label compatibility, not only its weight.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        kind: Literal["segmodel", "aspp", "ppm"] = "segmodel",
        stride: int = 16,
        patch_size: int = 2,
        rings: Rings = ((2, 6), (4, 12)),
        label_context: Literal["max_pool", "box_rings", "none"] = "max_pool",
        label_steps: int = 1,
        label_hidden: int = 128,
        label_pool: int = 25,
        upsampling: Literal["learnable", "bilinear"] = "learnable",
        guidance: Literal["joint", "inference", "off"] = "joint",
        guidance_radius: int = 3,
        guidance_eps: float = 1.0,
        guidance_weight: float = 2.0,
        guidance_iterations: int = 3,
        learn_compatibility: bool = True,
    ):
        super().__init__()
        if stride % patch_size:
            raise ValueError(f"patch_size: expected a divisor of the stride {stride}, got {patch_size}")
        cell = stride // patch_size
        if cell > 4 and cell % 4:
            raise ValueError(f"stride: expected stride / patch_size up to 4 or a multiple of it, got {cell}")
        self.patch_size = patch_size
        self.guidance_stride = min(4, cell)
        self.guidance = guidance
        if kind != "segmodel" and patch_size != 1:
            raise ValueError(f"patch_size: expected 1 with the head {kind}, got {patch_size}")
        self.feature_context = (
            FeatureContext(channels, num_classes, patch_size=patch_size, rings=rings)
            if kind == "segmodel"
            else PEERS[kind](channels, num_classes, stride=stride)
        )
        steps = 0 if label_context == "none" else label_steps
        label_rings = tuple((radius * patch_size, dilation * patch_size) for radius, dilation in rings)
        self.label_context = nn.ModuleList(
            MaxPoolLabelContext(num_classes, hidden=label_hidden, pool=label_pool)
            if label_context == "max_pool"
            else BoxRingLabelContext(num_classes, hidden=label_hidden, rings=label_rings)
            for _ in range(steps)
        )
        self.factor = cell // self.guidance_stride
        learnable = upsampling == "learnable" and self.factor > 1
        self.up = LearnableUpsampling(num_classes, self.factor) if learnable else None
        learned = guidance == "joint" and guidance_iterations > 0
        self.crf = GuidanceCRF(
            num_classes,
            radius=guidance_radius,
            eps=guidance_eps,
            weight=guidance_weight,
            iterations=guidance_iterations,
            learn_compatibility=learn_compatibility and learned,
            learn_weight=learned,
        )

    def coarse(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Decoupled scores of the context CRF at the guidance CRF's resolution, for an image of ``size`` (Eq. 4, 9).

        Returns ``(N, C, ceil(H / g), ceil(W / g))``, g the guidance stride (4, or the patch cell if that is finer).
        """
        scores = kernels.patch_rearrange(self.feature_context(features), patch_size=self.patch_size)
        estimate = scores
        for message in self.label_context:
            estimate = scores + message(estimate)
        estimate = estimate.to(torch.promote_types(estimate.dtype, torch.float32))
        with torch.autocast(estimate.device.type, enabled=False):
            estimate = self.upsample(estimate)
        g = self.guidance_stride
        # written as convolutions and pooling have it, and narrowed, not cut: exported sizes stay simple expressions
        height, width = ((side - 1) // g + 1 for side in size)
        return estimate.narrow(2, 0, height).narrow(3, 0, width)

    def upsample(self, scores: Tensor) -> Tensor:
        if self.up is not None:
            return self.up(scores)
        return enlarge(scores, self.factor)

    def refine(self, scores: Tensor, image: Tensor, *, guidance: bool) -> Tensor:
        """Guidance CRF (Algorithm 1), then fixed bilinear up-sampling to the image's size."""
        height, width = image.shape[-2:]
        g = self.guidance_stride
        if guidance:
            scores = self.crf(scores, area_average(image, g))
        return enlarge(scores, g).narrow(2, 0, height).narrow(3, 0, width)

    def forward(self, features: Tensor, image: Tensor, *, guidance: bool | None = None) -> Tensor:
        """``guidance=None`` follows the configuration: joint always, "inference" in evaluation mode only."""
        if guidance is None:
            guidance = self.guidance == "joint" or (self.guidance == "inference" and not self.training)
        return self.refine(self.coarse(features, (image.shape[-2], image.shape[-1])), image, guidance=guidance)


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Fixed bilinear interpolation by a whole factor (half-pixel centres, clamped border)."""
    if factor == 1:
        return x
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def area_average(image: Tensor, factor: int) -> Tensor:
    """Mean over factor x factor blocks; the last row and column are repeated up to a whole block.

    Of an image of half precision it is float32: that would round the means to whole colours, and the filter feels less.
    """
    if factor == 1:
        return image
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    more = factor - 1  # always: pooling drops what fills no block, and an exported size stays a simple expression
    return functional.avg_pool2d(functional.pad(image, (0, more, 0, more), mode="replicate"), factor)
