"""The paper's operators as differentiable PyTorch operators; tensors are N C H W everywhere."""

from .box_filter import box_filter
from .context_crf import distance_aware_pool
from .guidance_crf import guidance_crf
from .guided_filter import PreparedGuide, guided_filter, prepare_guide
from .patch_prediction import patch_rearrange

__all__ = [
    "PreparedGuide",
    "box_filter",
    "distance_aware_pool",
    "guidance_crf",
    "guided_filter",
    "patch_rearrange",
    "prepare_guide",
]
