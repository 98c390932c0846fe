r"""The paper in NumPy, every equation a function: executable documentation, and the oracle of everything fast.

Float64, one image at a time, channel last; a score is a negative energy. Each equation stands in its literal form first
(loops, dense matrices, enumeration), then in the form one would compute; tests hold the two together. Nothing here
imports torch or the rest of the package.

Read the modules in the order of :data:`MODULES`. :data:`CONTENTS` says where each equation is: here, among the
operators, and in the model or its training. ``python -m segmodel.reference --output paper.html`` prints all of it.

>>> lookup("Eq. 12").__name__
'dense_weights'
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

MODULES = (
    "arrays",
    "energy",
    "bilinear_target",
    "patch_prediction",
    "context_crf",
    "guided_filter",
    "guidance_crf",
    "head",
    "objective",
    "errata",
)


class Entry(NamedTuple):
    """The functions and classes that hold one equation; None in a room that holds no part of it of its own."""

    oracle: str  # under segmodel.reference
    operator: str | None = None  # under segmodel, as is the module
    module: str | None = None


CONTENTS = {
    "Eq. 1": Entry("energy.gibbs_distribution"),
    "Eq. 2": Entry("energy.total_energy"),
    "Eq. 3": Entry("patch_prediction.local_scores", module="model.patch_prediction.PatchPrediction"),
    "Eq. 4": Entry("energy.coarse_energy", module="model.head.SegmentationHead"),
    "Eq. 5": Entry("energy.refined_energy", module="model.upsampling.LearnableUpsampling"),
    "Sec. 3.1": Entry("bilinear_target.ambiguous_share", module="experiments.ceilings.ceilings"),
    "Eq. 6": Entry("bilinear_target.coarse_targets", module="experiments.ceilings.ceilings"),
    "Sec. 3.2": Entry(
        "patch_prediction.patch_rearrange",
        "kernels.patch_prediction.patch_rearrange",
        "model.patch_prediction.PatchPrediction",
    ),
    "Eq. 7": Entry("energy.context_energy"),
    "Eq. 8": Entry("energy.decoupled_energy"),
    "Sec. 4.1": Entry(
        "context_crf.ring_message", "kernels.context_crf.distance_aware_pool", "model.context_crf.ring_scores"
    ),
    "Eq. 9": Entry("context_crf.mean_field_update", module="model.head.SegmentationHead"),
    "Eq. 10": Entry(
        "context_crf.label_message_box_rings",
        "kernels.context_crf.distance_aware_pool",
        "model.context_crf.BoxRingLabelContext",
    ),
    "Eq. 11": Entry(
        "guided_filter.guided_filter", "kernels.guided_filter.guided_filter", "model.guided_filter.GuidedFilter"
    ),
    "Eq. 12": Entry(
        "guided_filter.dense_weights", "kernels.guided_filter.prepare_guide", "model.guided_filter.GuidedFilter"
    ),
    "Eq. 13": Entry("energy.decoupled_energy"),
    "Eq. 14": Entry("energy.fully_connected_energy"),
    "Eq. 15": Entry("energy.pairwise_potential"),
    "Algorithm 1": Entry(
        "guidance_crf.guidance_crf_steps", "kernels.guidance_crf.guidance_crf", "model.guidance_crf.GuidanceCRF"
    ),
    "Eq. 16": Entry(
        "guided_filter.guided_filter_adjoint", "kernels.guided_filter.filter_planes", "model.guided_filter.GuidedFilter"
    ),
    "Eq. 17": Entry("objective.regularised_objective", module="training.objective.hard_pixel_loss"),
    "Fig. 4": Entry("head.head", module="model.head.SegmentationHead"),
    "Hard mining": Entry("objective.hard_pixels", module="training.objective.hard_pixel_loss"),
    "Poly schedule": Entry("objective.poly_rate", module="training.optimisation.poly_rate"),
    "SGD": Entry("objective.sgd_step", module="training.optimisation.training_step"),
    "Batch norm": Entry("objective.recomputed_batch_norm", module="training.statistics.recompute_batch_norm"),
    "mIoU": Entry("objective.mean_iou", module="evaluation.metrics.mean_iou"),
}


def lookup(entry: str) -> Callable[..., object]:
    """Return the oracle of one entry of :data:`CONTENTS`."""
    module, name = CONTENTS[entry].oracle.split(".")
    function: Callable[..., object] = getattr(import_module(f"{__name__}.{module}"), name)
    return function
