"""Everything after the backbone: patch prediction, context CRF, up-sampling, guidance CRF (Sec. 3-5)."""

from typing import Literal

import torch
from torch import Tensor, nn

from segmodel import kernels
from segmodel.model.context_crf import BoxRingLabelContext, FeatureContext, MaxPoolLabelContext, Rings
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.peers import PEERS
from segmodel.model.upsampling import LearnableUpsampling, area_average, enlarge


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

    def guided(self, guidance: bool | None) -> GuidanceCRF | None:
        """The guidance CRF if it is switched on; None follows the configuration, see ``forward``."""
        if guidance is None:
            guidance = self.guidance == "joint" or (self.guidance == "inference" and not self.training)
        return self.crf if guidance else None

    def refine(self, scores: Tensor, image: Tensor, *, guidance: bool) -> Tensor:
        """Guidance CRF (Algorithm 1), then fixed bilinear up-sampling to the image's size."""
        height, width = image.shape[-2:]
        g = self.guidance_stride
        if guidance:
            scores = self.crf(scores, area_average(image, g))
        return enlarge(scores, g).narrow(2, 0, height).narrow(3, 0, width)

    def forward(self, features: Tensor, image: Tensor, *, guidance: bool | None = None) -> Tensor:
        """``guidance=None`` follows the configuration: joint always, "inference" in evaluation mode only."""
        guidance = self.guided(guidance) is not None
        return self.refine(self.coarse(features, (image.shape[-2], image.shape[-1])), image, guidance=guidance)
