"""The guidance CRF as a module for any model's scores (Algorithm 1)."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from segmodel.model.config import ModelConfig

from segmodel.kernels import backend, guidance_crf
from segmodel.model.guided_filter import check_settings, guide_from_image


class GuidanceCRF(nn.Module):
    r"""Algorithm 1 with a learnable compatibility :math:`\mu` and weight :math:`\lambda`.

    ``crf(scores, image)``: scores N L H W; image N B H W of 1 to 16 bands, at least as large, area-averaged to them.
    The result has the shape and dtype of the scores.

    Args:
        num_classes: L.
        radius, eps, iterations, weight: Sec. 5 and the authors' code (3, 1, 3, 2).
        learn_compatibility, learn_weight: whether the two are parameters that require a gradient.
        image_range: the values of the image's black and white; the guide is mapped to 0..255.
        border: "clipped" or "constant", see ``guided_filter``.

    Raises:
        ValueError: a setting that is out of range, and in a call scores or an image that do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        radius: int = 3,
        eps: float = 1.0,
        iterations: int = 3,
        weight: float = 2.0,
        learn_compatibility: bool = True,
        learn_weight: bool = True,
        image_range: tuple[float, float] = (0, 255),
        border: str = "clipped",
    ) -> None:
        super().__init__()
        if not hasattr(num_classes, "__index__") or num_classes < 1:
            raise ValueError(f"num_classes: expected an integer >= 1, got {num_classes!r}")
        check_settings(radius, eps, border, image_range)
        backend.check_count("iterations", iterations)
        if not math.isfinite(weight):
            raise ValueError(f"weight: expected a finite number, got {weight!r}")
        self.radius, self.eps, self.iterations, self.border = radius, eps, iterations, border
        self.image_range = image_range
        potts = 1.0 - torch.eye(num_classes)
        self.compatibility = nn.Parameter(potts, requires_grad=learn_compatibility)
        self.weight = nn.Parameter(torch.tensor(float(weight)), requires_grad=learn_weight)

    @classmethod
    def configured(cls, num_classes: int, config: "ModelConfig") -> "GuidanceCRF":
        """The guidance CRF that a configuration describes, untrained; its parameters learn if guidance is "joint"."""
        joint = config.guidance == "joint" and config.guidance_iterations > 0
        return cls(num_classes, radius=config.guidance_radius, eps=config.guidance_eps, weight=config.guidance_weight,
                   iterations=config.guidance_iterations, learn_weight=joint,
                   learn_compatibility=joint and config.learn_compatibility)  # fmt: skip

    def forward(self, scores: Tensor, image: Tensor) -> Tensor:
        backend.check_map("scores", scores)
        if scores.shape[1] != len(self.compatibility):
            raise ValueError(f"scores: expected N {len(self.compatibility)} H W, got shape {tuple(scores.shape)}")
        guide = guide_from_image(image, scores.shape[-2:], self.image_range)
        return guidance_crf(
            scores,
            guide,
            compatibility=self.compatibility,
            weight=self.weight,
            radius=self.radius,
            eps=self.eps,
            iterations=self.iterations,
            border=self.border,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.compatibility.shape[0]}, radius={self.radius}, eps={self.eps}, iterations={self.iterations}, "
            f"border={self.border!r}"
        )
