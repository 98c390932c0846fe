"""SegModel: backbone and head, their configuration, and the way to and from a file (Sec. 2)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from segmodel.backbone import IMAGE_MEAN, IMAGE_STD, ResNet
from segmodel.heads import SegmentationHead
from segmodel.losses import IGNORE
from segmodel.options import checked, option
from segmodel.timm_backbone import PREFIX, TimmBackbone

Variant = Literal["unary", "context", "patch", "guide", "aspp", "ppm"]


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a SegModel; the defaults are the paper's full model."""

    backbone: str = option("resnet", "resnet (its options: the next five), or timm:NAME (extra [timm])", "Sec. 7.1.2")
    depth: int = option(101, "ResNet depth: 18, 34, 50, 101 or 152", "Sec. 7.1.2")
    width: int = option(64, "planes of the backbone's first stage", "ResNet")
    stem_width: int = option(64, "channels of the backbone's first convolution", "ResNet")
    stride_in_1x1: bool = option(False, "a stage has its stride in its first 1x1 convolution (Caffe; depth 50 or more)")
    preactivation: bool = option(False, "pre-activation ResNet (depth 50 or more)", "authors' base model: true")
    output_stride: int = option(16, "pixels a feature cell, by the hole algorithm: 8, 16 or 32", "Sec. 7.1.2")
    head: Literal["segmodel", "aspp", "ppm"] = option("segmodel", "the paper's, or a peer: DeepLabV3's, PSPNet's")
    patch_size: int = option(2, "n: each feature predicts C x n x n scores", "Sec. 3.2")
    rings: tuple[tuple[int, int], ...] = option(
        ((2, 6), (4, 12)), "feature context: (box radius, distance) of each ring in cells", "Sec. 4.1, authors' code"
    )
    label_context: Literal["max_pool", "box_rings", "none"] = option(
        "max_pool", "label context: max-pooled scores (code), box means of probabilities (text)", "Eq. 10"
    )
    label_steps: int = option(1, "mean-field steps of the context CRF, own weights each", "authors' code")
    label_hidden: int = option(128, "hidden channels of the label message", "authors' code")
    label_pool: int = option(25, "side of the max-pool window, in label cells", "authors' code")
    upsampling: Literal["learnable", "bilinear"] = option("learnable", "from label cells to the guidance CRF", "Eq. 5")
    guidance: Literal["joint", "inference", "off"] = option(
        "joint", "guidance CRF: trained, added at inference only, or off", "Sec. 5, 7.2"
    )
    guidance_radius: int = option(3, "radius of the guided filter's window at its resolution", "authors' code")
    guidance_eps: float = option(1.0, "epsilon of Eq. 12, for colours in 0..255", "Sec. 5")
    guidance_weight: float = option(2.0, "lambda of Algorithm 1 (initial value if trained)", "authors' code")
    guidance_iterations: int = option(3, "iterations of Algorithm 1", "Sec. 5")
    learn_compatibility: bool = option(True, "train the label compatibility, from Potts on", "Sec. 5")

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, checked(getattr(self, name), kind, name))
        if self.backbone != "resnet" and not (self.backbone.startswith(PREFIX) and len(self.backbone) > len(PREFIX)):
            raise ValueError(f"backbone: expected resnet or timm:NAME, got {self.backbone!r}")
        # The upper ends are far from any use; they keep a stranger's checkpoint from asking for hours or all memory.
        ranges = {"width": (1, 4096), "stem_width": (1, 4096), "patch_size": (1, 32), "label_hidden": (1, 65536),
                  "label_steps": (0, 100), "label_pool": (1, 1025), "guidance_radius": (0, 1000),
                  "guidance_iterations": (0, 1000)}  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                limit = f"at least {low}" if value < low else f"at most {high}"
                raise ValueError(f"{name}: expected {limit}, got {value}")
        if self.label_pool % 2 == 0:
            raise ValueError(f"label_pool: expected an odd number, got {self.label_pool}")
        if self.label_context == "box_rings" and not self.rings:
            raise ValueError("rings: expected at least one with label_context box_rings, got none")
        if not 0 < self.guidance_eps < math.inf:
            raise ValueError(f"guidance_eps: expected a finite number above 0, got {self.guidance_eps}")
        if not math.isfinite(self.guidance_weight):
            raise ValueError(f"guidance_weight: expected a finite number, got {self.guidance_weight}")
        fit = all(len(ring) == 2 and 0 <= ring[0] <= 1000 and 1 <= ring[1] <= 1000 for ring in self.rings)
        if not fit or len(self.rings) > 16:
            raise ValueError(
                f"rings: expected up to 16 pairs, radius in 0..1000, distance in 1..1000, got {self.rings!r:.200}"
            )


VARIANTS: dict[str, dict[str, Any]] = {
    "unary": {"head": "segmodel", "patch_size": 1, "rings": (), "label_context": "none", "guidance": "off"},
    "context": {"head": "segmodel", "patch_size": 1, "guidance": "off"},
    "patch": {"head": "segmodel", "guidance": "off"},
    "guide": {"head": "segmodel"},
    "aspp": {"head": "aspp", "patch_size": 1, "rings": (), "label_context": "none", "guidance": "off"},
    "ppm": {"head": "ppm", "patch_size": 1, "rings": (), "label_context": "none", "guidance": "off"},
}
"""The four configurations of Table 3, as changes to the full model, and two peers to compare with."""
assert set(VARIANTS) == set(get_args(Variant))


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


class SegModel(nn.Module):
    """The whole model: image ``(N, 3, H, W)``, RGB in 0..255, any size from 1x1 -> scores ``(N, C, H, W)``.

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

    @staticmethod
    def load(path: str | Path) -> "SegModel":
        """The model of a run folder (its best checkpoint, else its last) or of a checkpoint file, ready for inference.

        ``model.classes`` and ``model.palette`` hold what it was trained on.

        Raises:
            ValueError: no checkpoint there, or not one of segmodel's.
        """
        from segmodel.checkpoint import load_model

        return load_model(path)

    def segment(self, image: Any, *, guidance: bool | None = None) -> Any:
        """Labels ``(H, W)`` uint8, class numbers, of a picture, at its size.

        Args:
            image: an array ``(H, W, 3)`` (RGB, not BGR) or ``(H, W)``, uint8; a PIL image; the path of a picture (its
                pixels as stored: an EXIF orientation is not applied). A list or tuple of such gives a list. The path of
                a folder gives a dict from each picture's path to its labels.
            guidance: the guidance CRF on or off (None: as configured).

        Convolutions are bfloat16 where the processor is fast with it. The model stays in its mode (training or not).

        Raises:
            ValueError: not such an image, an unreadable file, or a folder without pictures.
        """
        from segmodel.segment import segment

        return segment(self, image, guidance=guidance)

    def save_pretrained(self, folder: str | Path, **about: Any) -> None:
        """Writes model.safetensors and card.json, for ``from_pretrained`` and for others to read.

        The card holds classes, palette, normalisation and channel order, configuration, versions, and ``about``: any of
        ``licence``, ``training_data``, ``scores``, ``data``, ``step``, ``total_steps`` (JSON values); what is not given
        is taken from ``self.card``, which ``load`` fills. A folder that is there is written over.

        Raises:
            ValueError: a model without ``classes`` and ``palette``, or an unknown name.
        """
        from segmodel.pretrained import save_pretrained

        save_pretrained(self, folder, **about)

    @staticmethod
    def from_pretrained(folder: str | Path) -> "SegModel":
        """The model of a folder of ``save_pretrained``, bit for bit, ready for inference; nothing is executed.

        Raises:
            ValueError: a file that is missing or unreadable, or a card that does not fit the weights.
        """
        from segmodel.pretrained import from_pretrained

        return from_pretrained(folder)
