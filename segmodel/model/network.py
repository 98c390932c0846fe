"""The paper's network: backbone and head (Sec. 2)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmodel.common.labels import IGNORE
from segmodel.model.config import ModelConfig
from segmodel.model.head import SegmentationHead
from segmodel.model.registry import backbone_class


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
        if not hasattr(num_classes, "__index__") or not 1 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes: expected an integer from 1 to {IGNORE} (which marks ignored pixels), "
                             f"got {num_classes!r}")  # fmt: skip
        self.config, self.num_classes = config or ModelConfig(), int(num_classes)
        self.backbone = backbone_class(self.config.backbone).configured(self.config)
        self.head = SegmentationHead(self.backbone.channels, self.num_classes, self.config)
        self.classes: tuple[str, ...] = ()
        self.palette = np.empty((0, 3), np.uint8)
        self.card: dict[str, Any] = {}
        for name, colour in (("image_mean", self.backbone.mean), ("image_std", self.backbone.std)):
            self.register_buffer(name, torch.tensor(colour)[:, None, None], persistent=False)

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
