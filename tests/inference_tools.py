"""Small untrained models and run folders for the tests of inference, evaluate and predict."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodel.data.scenes import CLASSES, PALETTE
from segmodel.model.config import ModelConfig
from segmodel.model.store import save_checkpoint
from segmodel.segmodel import SegModel

TINY = {"depth": 18, "width": 4, "stem_width": 4, "label_hidden": 4, "rings": ((1, 2),), "label_pool": 5}


def tiny_model(num_classes: int = 5, *, seed: int = 0, **config) -> SegModel:
    """A random model in evaluation mode whose labels vary over an image."""
    torch.manual_seed(seed)
    model = SegModel(num_classes, ModelConfig(**{**TINY, **config}))
    for parameter in model.head.parameters():
        if parameter.ndim == 4:
            parameter.data.add_(torch.randn_like(parameter) * 0.3 / parameter[0].numel() ** 0.5)
    return model.eval()


class CellColours(nn.Module):
    """A backbone that sees a cell alone: features of each block of ``stride`` pixels, ragged blocks padded."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(3, channels, stride, stride=stride)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        return self.conv(functional.pad(image, padding, mode="replicate"))


def local_model(num_classes: int = 4, *, seed: int = 0) -> SegModel:
    """A model whose scores, before the guidance CRF, depend on pixels within a cell and a half."""
    model = tiny_model(num_classes, seed=seed, rings=(), label_context="none", guidance="off")
    model.backbone = CellColours(model.backbone.channels, model.config.output_stride)  # type: ignore[assignment]
    return model.eval()


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Coloured squares of 8 pixels with some noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(20, 236, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    return (blocks + rng.integers(-20, 20, blocks.shape)).astype(np.uint8)


def tiny_run(folder: Path, *, seed: int = 0, classes: tuple[str, ...] = CLASSES, **config) -> Path:
    """A run folder with an untrained checkpoint."""
    folder.mkdir(parents=True)
    model = tiny_model(len(classes), seed=seed, **config)
    palette = np.resize(PALETTE, (len(classes), 3))
    card = {"model": asdict(model.config), "classes": list(classes), "palette": palette.tolist(),
            "data": "scenes:train=1,val=3"}  # fmt: skip
    save_checkpoint(folder / "last.safetensors", model, card)
    return folder
