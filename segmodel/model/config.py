"""The configuration of a network, and the variants of Table 3."""

from dataclasses import dataclass
from typing import Any, Literal

from segmodel.common.options import Section, option
from segmodel.model.registry import HEADS, backbone_class


@dataclass(frozen=True)
class ModelConfig(Section):
    """Architecture of a ``Network``; the defaults are the paper's full model.

    The upper bounds are far from any use; they keep a stranger's checkpoint from asking for hours or all memory.
    """

    backbone: str = option("resnet", "resnet (its options: the next five), or timm:NAME (extra [timm])", "Sec. 7.1.2")
    depth: int = option(101, "ResNet depth: 18, 34, 50, 101 or 152", "Sec. 7.1.2")
    width: int = option(64, "planes of the backbone's first stage", "ResNet", at_least=1, at_most=4096)
    stem_width: int = option(64, "channels of the backbone's first convolution", "ResNet", at_least=1, at_most=4096)
    stride_in_1x1: bool = option(False, "a stage has its stride in its first 1x1 convolution (Caffe; depth 50 or more)")
    preactivation: bool = option(False, "pre-activation ResNet (depth 50 or more)", "authors' base model: true")
    output_stride: int = option(16, "pixels a feature cell, by the hole algorithm: 8, 16 or 32", "Sec. 7.1.2")
    head: str = option("segmodel", "what makes scores of features: the paper's, or a peer's", choices=tuple(HEADS))
    patch_size: int = option(2, "n: each feature predicts C x n x n scores", "Sec. 3.2", at_least=1, at_most=32)
    rings: tuple[tuple[int, int], ...] = option(
        ((2, 6), (4, 12)),
        "feature context: (box radius, distance) of each ring in cells; training on a smaller map "
        "than the paper's: in proportion",
        "Sec. 4.1, authors' code",
    )
    label_context: Literal["max_pool", "box_rings", "none"] = option(
        "max_pool", "label context: max-pooled scores (code), box means of probabilities (text)", "Eq. 10"
    )
    label_steps: int = option(
        1, "mean-field steps of the context CRF, own weights each", "authors' code", at_least=0, at_most=100
    )
    label_hidden: int = option(128, "hidden channels of the label message", "authors' code", at_least=1, at_most=65536)
    label_pool: int = option(
        25,
        "side of the max-pool window, in label cells; on a smaller map or with other n: in proportion",
        "authors' code",
        at_least=1,
        at_most=1025,
    )
    upsampling: Literal["learnable", "bilinear"] = option("learnable", "from label cells to the guidance CRF", "Eq. 5")
    guidance: Literal["joint", "inference", "off"] = option(
        "joint", "guidance CRF: trained, added at inference only, or off", "Sec. 5, 7.2"
    )
    guidance_radius: int = option(
        3, "radius of the guided filter's window at its resolution", "authors' code", at_least=0, at_most=1000
    )
    guidance_eps: float = option(1.0, "epsilon of Eq. 12, for colours in 0..255", "Sec. 5", above=0)
    guidance_weight: float = option(2.0, "lambda of Algorithm 1 (initial value if trained)", "authors' code")
    guidance_iterations: int = option(3, "iterations of Algorithm 1", "Sec. 5", at_least=0, at_most=1000)
    learn_compatibility: bool = option(True, "train the label compatibility, from Potts on", "Sec. 5")

    def __post_init__(self) -> None:
        super().__post_init__()
        backbone_class(self.backbone)
        if self.label_pool % 2 == 0:
            raise ValueError(f"label_pool: expected an odd number, got {self.label_pool}")
        if self.label_context == "box_rings" and not self.rings:
            raise ValueError("rings: expected at least one with label_context box_rings, got none")
        fit = all(0 <= radius <= 1000 and 1 <= distance <= 1000 for radius, distance in self.rings)
        if not fit or len(self.rings) > 16:
            raise ValueError(
                f"rings: expected up to 16 pairs, radius in 0..1000, distance in 1..1000, got {self.rings!r:.200}"
            )


PEERS = tuple(name for name in HEADS if name != "segmodel")
"""Heads of other papers, to compare with."""
PLAIN: dict[str, Any] = {"patch_size": 1, "rings": (), "label_context": "none", "guidance": "off"}
"""Changes to the full model that leave a classifier of features, enlarged."""
VARIANTS: dict[str, dict[str, Any]] = {
    "unary": {"head": "segmodel", **PLAIN},
    "context": {"head": "segmodel", "patch_size": 1, "guidance": "off"},
    "patch": {"head": "segmodel", "guidance": "off"},
    "guide": {"head": "segmodel"},
    **{name: {"head": name, **PLAIN} for name in PEERS},
}
"""The four configurations of Table 3, as changes to the full model, and the peers to compare with."""
