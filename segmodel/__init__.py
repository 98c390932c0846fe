"""Semantic segmentation via structured patch prediction, context CRF and guidance CRF (CVPR 2017).

Public names load on first use (PEP 562), so that ``import segmodel.reference`` loads no torch and
``import segmodel.kernels`` no model.
"""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmodel.evaluation.tuning import tune_refinement as tune_refinement
    from segmodel.inference.comparison import compare as compare
    from segmodel.inference.refine import refine as refine
    from segmodel.inference.refine import refine_mask as refine_mask
    from segmodel.inference.refine_labels import refine_labels as refine_labels
    from segmodel.inference.refine_map import refine_map as refine_map
    from segmodel.model.config import ModelConfig as ModelConfig
    from segmodel.model.guidance_crf import GuidanceCRF as GuidanceCRF
    from segmodel.model.guided_filter import GuidedFilter as GuidedFilter
    from segmodel.segmodel import SegModel as SegModel

if not all(os.path.isdir(os.path.join(__path__[0], room)) for room in ("kernels", "reference")):
    raise ImportError("segmodel/kernels and segmodel/reference must be links to ../kernels and ../reference, and are "
                      "text files here: run git config core.symlinks true, then git checkout -- segmodel")  # fmt: skip

# torch's OpenMP threads would spin while they wait for one another. On a busy machine each then burns the time that the
# other needs: two threads beside a busy process filtered at a quarter of the pace, and 107 steps of a training took 11
# minutes. Threads that never spin are as bad elsewhere: waking one costs more than many a small operator. So they spin
# for a fraction of a microsecond, as GNU OpenMP's do where it knows that cores are few. Read when torch loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "100")

__version__ = "0.1.0"
_HOME = {
    "GuidanceCRF": "segmodel.model.guidance_crf",
    "GuidedFilter": "segmodel.model.guided_filter",
    "ModelConfig": "segmodel.model.config",
    "SegModel": "segmodel.segmodel",
    "compare": "segmodel.inference.comparison",
    "refine": "segmodel.inference.refine",
    "refine_labels": "segmodel.inference.refine_labels",
    "refine_map": "segmodel.inference.refine_map",
    "refine_mask": "segmodel.inference.refine",
    "tune_refinement": "segmodel.evaluation.tuning",
}
__all__ = [
    "GuidanceCRF",
    "GuidedFilter",
    "ModelConfig",
    "SegModel",
    "__version__",
    "compare",
    "refine",
    "refine_labels",
    "refine_map",
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


class _Package(ModuleType):
    """Public names stay what they are where the module of a command has the same name (``import segmodel.refine``)."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _HOME:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
