"""The paper's network: backbone and head (Sec. 2)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmodel.common.labels import IGNORE
from segmodel.model.backbone import IMAGE_MEAN, IMAGE_STD, ResNet
from segmodel.model.config import ModelConfig
from segmodel.model.head import SegmentationHead
from segmodel.model.timm_backbone import PREFIX, TimmBackbone


def make_backbone(config: ModelConfig) -> ResNet | TimmBackbone:
    """The backbone that a configuration names, without weights."""
    if config.backbone.startswith(PREFIX):
        return TimmBackbone(config.backbone.removeprefix(PREFIX), output_stride=config.output_stride)
    return ResNet(
        config.depth,
        output_stride=config.output_stride,
        width=config.width,
        stem_width=config.stem_width,
        stride_in_1x1=config.stride_in_1x1,
        preactivation=config.preactivation,
    )


class Network(nn.Module):
    """The paper's network: image ``(N, 3, H, W)``, RGB in 0..255, any size from 1x1 -> scores ``(N, C, H, W)``.

    Colours are normalised inside, and the guidance CRF sees the image as it is. Scores are negative energies:
    ``scores.softmax(1)`` are the marginals, ``scores.argmax(1)`` is the segmentation.

    Args:
        num_classes: C, at most 255: labels are bytes, and 255 marks ignored pixels. config: architecture.

    ``classes`` (names) and ``palette`` (C x 3, uint8) say what it was trained on, ``card`` what is known beyond that
    (data, scores, licence); empty on a new model.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, num_classes: int, config: ModelConfig | None = None):
        super().__init__()
        config = config or ModelConfig()
        if not hasattr(num_classes, "__index__") or not 1 <= num_classes <= IGNORE:
            raise ValueError(
                f"num_classes: expected an integer from 1 to {IGNORE} (which marks ignored pixels), got {num_classes!r}"
            )
        num_classes = int(num_classes)
        self.config = config
        self.num_classes = num_classes
        self.backbone = make_backbone(config)
        self.head = SegmentationHead(
            self.backbone.channels,
            num_classes,
            kind=config.head,
            stride=config.output_stride,
            patch_size=config.patch_size,
            rings=config.rings,
            label_context=config.label_context,
            label_steps=config.label_steps,
            label_hidden=config.label_hidden,
            label_pool=config.label_pool,
            upsampling=config.upsampling,
            guidance=config.guidance,
            guidance_radius=config.guidance_radius,
            guidance_eps=config.guidance_eps,
            guidance_weight=config.guidance_weight,
            guidance_iterations=config.guidance_iterations,
            learn_compatibility=config.learn_compatibility,
        )
        self.classes: tuple[str, ...] = ()
        self.palette = np.empty((0, 3), np.uint8)
        self.card: dict[str, Any] = {}
        timm = isinstance(self.backbone, TimmBackbone)
        mean, std = (self.backbone.mean, self.backbone.std) if timm else (IMAGE_MEAN, IMAGE_STD)  # type: ignore[union-attr]
        self.register_buffer("image_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("image_std", torch.tensor(std)[:, None, None], persistent=False)

    def features(self, image: Tensor) -> Tensor:
        """Backbone features ``(N, D, ceil(H / stride), ceil(W / stride))`` of an image in 0..255."""
        normal = (image - self.image_mean) / self.image_std
        return self.backbone(normal.to(self.image_mean.dtype))  # of a model in half precision: an image rarely is

    def forward(self, image: Tensor, *, guidance: bool | None = None) -> Tensor:
        """Scores; ``guidance`` switches the guidance CRF on or off (None: as configured)."""
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point() or min(image.shape) < 1:
            raise ValueError(
                f"image: expected a floating point tensor (N, 3, H, W), got {image.dtype} {tuple(image.shape)}"
            )
        return self.head(self.features(image), image, guidance=guidance)
