"""Everything after the backbone: patch prediction, context CRF, up-sampling, guidance CRF (Sec. 3-5)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from segmodel import kernels
from segmodel.model.config import ModelConfig
from segmodel.model.context_crf import LABEL_CONTEXTS
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.registry import HEADS
from segmodel.model.upsampling import LearnableUpsampling, area_average, enlarge

Refiner = Callable[[Tensor, Tensor], Tensor]
"""Scores ``(N, C, h, w)`` and guide ``(N, 3, h, w)`` -> scores ``(N, C, h, w)``, such as a ``GuidanceCRF``."""


class SegmentationHead(nn.Module):
    """The whole head. Features ``(N, D, h, w)`` and image ``(N, 3, H, W)`` in 0..255 -> scores ``(N, C, H, W)``.

    Args:
        channels: D. num_classes: C. config: architecture.

    Raises:
        ValueError: options that do not fit one another; the message names one.
    """

    def __init__(self, channels: int, num_classes: int, config: ModelConfig):
        super().__init__()
        stride, self.patch_size, self.guidance = config.output_stride, config.patch_size, config.guidance
        if stride % self.patch_size:
            raise ValueError(f"patch_size: expected a divisor of the stride {stride}, got {self.patch_size}")
        cell = stride // self.patch_size
        if cell > 4 and cell % 4:
            raise ValueError(f"stride: expected stride / patch_size up to 4 or a multiple of it, got {cell}")
        kind = HEADS[config.head]
        if self.patch_size != 1 and not kind.patches:
            raise ValueError(f"patch_size: expected 1 with the head {config.head}, got {self.patch_size}")
        self.guidance_stride = min(4, cell)
        self.feature_context = kind(channels, num_classes, config)
        steps = 0 if config.label_context == "none" else config.label_steps
        self.label_context = nn.ModuleList(
            LABEL_CONTEXTS[config.label_context](num_classes, config) for _ in range(steps)
        )
        self.factor = cell // self.guidance_stride
        learnable = config.upsampling == "learnable" and self.factor > 1
        self.up = LearnableUpsampling(num_classes, self.factor) if learnable else None
        self.crf = GuidanceCRF.configured(num_classes, config)
        self.chosen: Refiner | Literal[False] | None = None
        """What takes the place of the configured guidance at inference, if it was chosen on pictures; False: none."""

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

    def guided(self, guidance: bool | None) -> Refiner | None:
        """The guidance CRF, or None for none; ``guidance=None`` is as configured ("inference": not in training)."""
        chosen = None if self.training else self.chosen
        if guidance is None:
            configured = self.guidance == "joint" or (self.guidance == "inference" and not self.training)
            guidance = configured if chosen is None else chosen is not False
        return (chosen or self.crf) if guidance else None

    def refine(self, scores: Tensor, image: Tensor, crf: Refiner | None) -> Tensor:
        """Guidance CRF (Algorithm 1), if there is one, then fixed bilinear up-sampling to the image's size."""
        height, width = image.shape[-2:]
        g = self.guidance_stride
        if crf is not None:
            scores = crf(scores, area_average(image, g))
        return enlarge(scores, g).narrow(2, 0, height).narrow(3, 0, width)

    def forward(self, features: Tensor, image: Tensor, *, guidance: bool | None = None) -> Tensor:
        """Scores; ``guidance`` switches the guidance CRF on or off (None: as configured)."""
        coarse = self.coarse(features, (image.shape[-2], image.shape[-1]))
        return self.refine(coarse, image, self.guided(guidance))
