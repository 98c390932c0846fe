"""What a network asks of its backbone, whichever it is."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from segmodel.model.weights import LoadReport, copy_fitting, read_weights

if TYPE_CHECKING:
    from segmodel.model.config import ModelConfig


class Backbone(nn.Module):
    """Base of all backbones: normalised image ``(N, 3, H, W)`` -> features ``(N, channels, h, w)``.

    h and w are ``ceil(H / output_stride)`` and ``ceil(W / output_stride)``, for any size from 1x1 on.
    """

    form = "resnet"
    """What ``ModelConfig.backbone`` may hold; NAME in it stands for any text."""
    leaves_unused = False
    """Whether some parameters never get a gradient."""
    channels: int
    mean: tuple[float, ...]
    """Colours (RGB, 0..255) that become 0, and in ``std`` those that become 1 from there: the weights expect that."""
    std: tuple[float, ...]
    recompute: bool
    """Keep less memory in training: activations are computed a second time in the backward pass (may be set)."""

    @classmethod
    def configured(cls, config: "ModelConfig") -> "Backbone":
        """The backbone that a configuration describes, without trained weights.

        Raises:
            ValueError: options that do not fit one another.
        """
        raise NotImplementedError

    def load_weights(self, path: str | Path) -> LoadReport:
        """Copies the tensors of a weight file whose names and shapes fit.

        Raises:
            ValueError: unreadable file, a name that fits with a shape that does not, NaN or infinity, or nothing fits.
        """
        return copy_fitting(self, self.read_weights(path), path)

    def read_weights(self, path: str | Path) -> dict[str, Tensor]:
        """The tensors of a weight file under this module's names."""
        return read_weights(path)
