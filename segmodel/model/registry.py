"""The backbones and heads that a configuration can name; a new one is entered here, and nowhere else."""

from segmodel.model.backbone import Backbone
from segmodel.model.context_crf import FeatureContext
from segmodel.model.context_head import ContextHead
from segmodel.model.peers import ASPP, PPM
from segmodel.model.resnet import ResNet
from segmodel.model.timm_backbone import TimmBackbone

BACKBONES: dict[str, type[Backbone]] = {"resnet": ResNet, "timm": TimmBackbone}
"""Key: what precedes the colon in ``ModelConfig.backbone``."""
HEADS: dict[str, type[ContextHead]] = {"segmodel": FeatureContext, "aspp": ASPP, "ppm": PPM}
"""Key: ``ModelConfig.head``. The first is the paper's, the others are its peers."""


def backbone_class(name: str) -> type[Backbone]:
    """The class of backbone that a configuration's ``backbone`` names.

    Raises:
        ValueError: there is none of that name.
    """
    kind, colon, rest = name.partition(":")
    found = BACKBONES.get(kind)
    if found is None or (bool(colon), bool(rest)) != (":" in found.form,) * 2:
        forms = " or ".join(backbone.form for backbone in BACKBONES.values())
        raise ValueError(f"backbone: expected {forms}, got {name!r:.200}")
    return found
