"""The context CRF: rings of feature context and the label message (Sec. 4, Eq. 7-10)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodel import kernels

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

    exportable = True

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
