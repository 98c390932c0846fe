"""The interface of heads: what turns features into scores per cell, the paper's way or a peer's."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from segmodel.model.config import ModelConfig


class ContextHead(nn.Module):
    """Base of all heads: features ``(N, D, h, w)`` -> scores ``(N, n * n * C, h, w)``, C for each of n x n label cells.

    n is 1 except for the paper's head; the order of the channels is that of ``kernels.patch_rearrange``. The last layer
    is a ``PatchPrediction``, initialised: all heads start from small random scores.

    Args:
        channels: D, 1 or more.
        num_classes: C.
        config: the whole configuration; each head takes from it what it needs.
    """

    patches = False
    """Whether n may be more than 1."""
    exportable = True
    """False if an operator's constants depend on the image's size."""

    def __init__(self, channels: int, num_classes: int, config: "ModelConfig"):
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        raise NotImplementedError
