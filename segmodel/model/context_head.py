"""What the segmentation head asks of the module that makes scores of features, the paper's or a peer's."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from segmodel.model.config import ModelConfig


class ContextHead(nn.Module):
    """Base of these modules: features ``(N, D, h, w)`` -> n x n patches of C scores a cell ``(N, n * n * C, h, w)``.

    Args:
        channels: D. num_classes: C. config: the whole configuration; each module takes from it what it needs.
    """

    patches = False
    """Whether n may be more than 1."""
    exportable = True
    """Whether its operators do not depend on the image's size."""

    def __init__(self, channels: int, num_classes: int, config: "ModelConfig"):
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        raise NotImplementedError
