"""Semantic segmentation via structured patch prediction, context CRF and guidance CRF (CVPR 2017).

Public names load on first use (PEP 562), so that ``import segmodel.reference`` loads no torch and
``import segmodel.kernels`` no model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmodel.guidance import GuidanceCRF as GuidanceCRF
    from segmodel.guidance import GuidedFilter as GuidedFilter
    from segmodel.model import ModelConfig as ModelConfig
    from segmodel.model import SegModel as SegModel
    from segmodel.refine import refine as refine
    from segmodel.refine import refine_mask as refine_mask
    from segmodel.tune import tune_refinement as tune_refinement

__version__ = "0.1.0"
_HOME = {
    "GuidanceCRF": "segmodel.guidance",
    "GuidedFilter": "segmodel.guidance",
    "ModelConfig": "segmodel.model",
    "SegModel": "segmodel.model",
    "refine": "segmodel.refine",
    "refine_mask": "segmodel.refine",
    "tune_refinement": "segmodel.tune",
}
__all__ = [
    "GuidanceCRF",
    "GuidedFilter",
    "ModelConfig",
    "SegModel",
    "__version__",
    "refine",
    "refine_mask",
    "tune_refinement",
]


def __getattr__(name: str) -> object:
    if name in ("kernels", "reference"):
        return import_module(f"segmodel.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'segmodel' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
