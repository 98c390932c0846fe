"""The heads of two other papers, to compare with on equal terms: the same backbone, training and metrics.

Their widths are the published ones, 256 and 512, or D if that is less. Neither has the published models' extras (a
second loss inside the backbone, larger crops).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodel.model.context_head import ContextHead
from segmodel.model.patch_prediction import PatchPrediction

if TYPE_CHECKING:
    from segmodel.model.config import ModelConfig

ASPP_WIDTH, PPM_WIDTH = 256, 512
"""Channels of DeepLabV3's branches, and of PSPNet's last layer before the classifier."""
PYRAMID = (1, 2, 3, 6)
"""Bins a side of PSPNet's pooled grids."""
DILATIONS = (6, 12, 18)
"""Dilations of DeepLabV3's atrous convolutions at output stride 16; at 8 they are twice these."""


def _block(inputs: int, outputs: int, *, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _pooled(inputs: int, outputs: int, bins: int) -> nn.Sequential:
    """A block on a pooled grid; one bin an image is too few values for a batch norm on a batch of one."""
    if bins > 1:
        return nn.Sequential(nn.AdaptiveAvgPool2d(bins), _block(inputs, outputs))
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))


def _classifier(channels: int, num_classes: int) -> nn.Conv2d:
    classifier = PatchPrediction(channels, num_classes, patch_size=1)
    classifier.initialise()
    return classifier


class ASPP(ContextHead):
    """Atrous spatial pyramid pooling (Chen et al., Rethinking Atrous Convolution, 2017, Sec. 3.3).

    A 1x1 convolution, three dilated 3x3 convolutions and the mean of the image, joined, then 3x3 and a classifier.
    """

    def __init__(self, channels: int, num_classes: int, config: "ModelConfig"):
        super().__init__(channels, num_classes, config)
        hidden = min(channels, ASPP_WIDTH)
        dilations = [max(1, d * 16 // config.output_stride) for d in DILATIONS]
        self.branches = nn.ModuleList(
            [_block(channels, hidden)] + [_block(channels, hidden, kernel=3, dilation=d) for d in dilations]
        )
        self.image = _pooled(channels, hidden, 1)
        self.join = nn.Sequential(_block(5 * hidden, hidden), nn.Dropout(0.5), _block(hidden, hidden, kernel=3))
        self.classifier = _classifier(hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        parts = [branch(features) for branch in self.branches]
        parts.append(self.image(features).expand(-1, -1, *features.shape[-2:]))
        return self.classifier(self.join(torch.cat(parts, 1)))


class PPM(ContextHead):
    """Pyramid pooling module (Zhao et al., Pyramid Scene Parsing Network, CVPR 2017, Sec. 3.2).

    Means over grids of 1, 2, 3 and 6 bins a side, enlarged and joined to the features, then 3x3 and a classifier. They
    are interpolated between the bins' centres; the published code does it with aligned corners.
    """

    exportable = False  # the cells of its grids depend on the image's size

    def __init__(self, channels: int, num_classes: int, config: "ModelConfig"):
        super().__init__(channels, num_classes, config)
        part = max(1, channels // len(PYRAMID))
        self.levels = nn.ModuleList(_pooled(channels, part, bins) for bins in PYRAMID)
        hidden = min(channels, PPM_WIDTH)
        self.join = nn.Sequential(_block(channels + len(PYRAMID) * part, hidden, kernel=3), nn.Dropout2d(0.1))
        self.classifier = _classifier(hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        size = features.shape[-2:]
        parts = [
            functional.interpolate(level(features), size=size, mode="bilinear", align_corners=False)
            for level in self.levels
        ]
        return self.classifier(self.join(torch.cat([features, *parts], 1)))
