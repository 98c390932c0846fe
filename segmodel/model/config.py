"""The configuration of a network, and the variants of Table 3."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from segmodel.common.options import checked, option
from segmodel.model.timm_backbone import PREFIX

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
