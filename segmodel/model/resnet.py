"""ResNet with the hole algorithm (Sec. 7.1.2), under torchvision's parameter names.

The stride of the last stages is replaced by dilation. The rule is exact: whatever the original network computes at
stride 32, the dense one computes at every 2nd (output stride 16) or 4th (output stride 8) position of its map, so
pre-trained weights keep their meaning. A 3x3 filter is therefore dilated only if it comes after the removed stride.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segmodel.model.backbone import Backbone

if TYPE_CHECKING:
    from segmodel.model.config import ModelConfig

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _conv3x3(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)


class _Subsampled1x1(nn.Conv2d):
    """A 1x1 convolution that takes its stride first.

    oneDNN's own way writes past a buffer in the weights' gradient of fewer channels than its block (8, with AVX-512 16)
    and "channels last" (its issue 6035): a training on CPU crashes, hangs or learns from garbage.
    """

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight)


def _conv1x1(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    kind = _Subsampled1x1 if stride > 1 and inputs < 16 else nn.Conv2d
    return kind(inputs, outputs, 1, stride, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int, *, normalised: bool) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    conv = _conv1x1(inputs, outputs, stride)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if normalised else nn.Sequential(conv)


class Basic(nn.Module):
    """Two 3x3 convolutions (ResNet-18 and 34); ``dilations`` holds that of each."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilations: tuple[int, int], *, stride_in_1x1: bool):
        super().__init__()
        self.conv1 = _conv3x3(inputs, planes, stride, dilations[0])
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, 1, dilations[1])
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, planes, stride, normalised=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 (ResNet-50 and deeper); the stride sits in the 3x3 or, Caffe style, in the first 1x1."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilations: tuple[int, int], *, stride_in_1x1: bool):
        super().__init__()
        outputs = planes * self.expansion
        dilation = dilations[1] if stride_in_1x1 else dilations[0]
        self.conv1 = _conv1x1(inputs, planes, stride if stride_in_1x1 else 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, 1 if stride_in_1x1 else stride, dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride, normalised=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class PreActivationBottleneck(nn.Module):
    """Bottleneck with normalisation and ReLU before each convolution (the authors' base model)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilations: tuple[int, int], *, stride_in_1x1: bool):
        super().__init__()
        outputs = planes * self.expansion
        dilation = dilations[1] if stride_in_1x1 else dilations[0]
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv1x1(inputs, planes, stride if stride_in_1x1 else 1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, 1 if stride_in_1x1 else stride, dilation)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride, normalised=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.bn1(x))
        y = self.relu(self.bn2(self.conv1(activated)))
        y = self.conv3(self.relu(self.bn3(self.conv2(y))))
        return y + (x if self.downsample is None else self.downsample(activated))


class ResNet(Backbone):
    """Features of a ResNet, without its classifier.

    Args:
        depth: 18, 34, 50, 101 or 152.
        output_stride: 8, 16 or 32 pixels an output cell.
        width: planes of the first stage (64 in the standard networks).
        stem_width: channels of the first convolution (64 in the standard networks).
        stride_in_1x1: the stride of a stage sits in the first 1x1 convolution of its first block (Caffe style); the
            basic blocks of 18 and 34 have none, and it changes nothing there.
        preactivation: normalisation and ReLU before the convolutions; bottleneck depths (50, 101, 152) only.

    Forward: normalised image ``(N, 3, H, W)`` -> ``(N, channels, ceil(H / output_stride), ceil(W / output_stride))``.
    """

    mean, std = (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)  # of ImageNet
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        depth: int = 101,
        *,
        output_stride: int = 16,
        width: int = 64,
        stem_width: int = 64,
        stride_in_1x1: bool = False,
        preactivation: bool = False,
    ):
        super().__init__()
        if depth not in LAYERS:
            raise ValueError(f"depth: expected one of {sorted(LAYERS)}, got {depth}")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {output_stride}")
        if preactivation and depth < 50:
            raise ValueError(f"preactivation: expected a depth of 50, 101 or 152, got depth {depth}")
        block: type[PreActivationBottleneck | Bottleneck | Basic] = (
            PreActivationBottleneck if preactivation else Bottleneck if depth >= 50 else Basic
        )
        self.conv1 = nn.Conv2d(3, stem_width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, stride, dilation = stem_width, 4, 1
        for stage, blocks in enumerate(LAYERS[depth]):
            step, before = (1 if stage == 0 else 2), dilation
            if stride * step > output_stride:
                step, dilation = 1, dilation * step
            stride *= step
            planes = width << stage
            layers = []
            for index in range(blocks):
                dilations = (before, dilation) if index == 0 else (dilation, dilation)
                layers.append(block(inputs, planes, step if index == 0 else 1, dilations, stride_in_1x1=stride_in_1x1))
                inputs = planes * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.channels = inputs
        self.recompute = False
        self.last = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)) if preactivation else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # on "meta" that would load half of torch
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @classmethod
    def configured(cls, config: "ModelConfig") -> "ResNet":
        names = ("depth", "output_stride", "width", "stem_width", "stride_in_1x1", "preactivation")
        return cls(**{name: getattr(config, name) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            if not (self.recompute and torch.is_grad_enabled()):
                x = stage(x)
                continue
            for block in stage:
                x = recomputed(block, x)
        return self.last(x)


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)`` that keeps only x for the backward pass and recomputes the rest there.

    The second time running statistics stay as the first time left them.
    """
    if torch.compiler.is_compiling():  # the compiler cannot see through on_copies, and updates statistics once
        return checkpoint(block, x, use_reentrant=False)
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    @contextmanager
    def on_copies() -> Iterator[None]:
        kept = [norm._buffers for norm in norms]
        for norm in norms:
            norm._buffers = {name: value.clone() for name, value in norm._buffers.items() if value is not None}
        try:
            yield
        finally:  # it is left early, by an exception, once everything is there
            for norm, buffers in zip(norms, kept, strict=True):
                norm._buffers = buffers

    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), on_copies()))
