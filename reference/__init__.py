r"""The paper in NumPy, every equation a function: executable documentation, and the oracle of everything fast.

Float64, one image at a time, channel last; a score is a negative energy. Each equation stands in its literal form first
(loops, dense matrices, enumeration), then in the form one would compute; tests hold the two together. Nothing here
imports torch or the rest of the package.

Read the modules in the order of :data:`MODULES`; :data:`CONTENTS` says where each equation is, and
``python -m segmodel.reference --output paper.html`` prints all of it.

>>> lookup("Eq. 12").__name__
'dense_weights'
"""

from collections.abc import Callable
from importlib import import_module

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

CONTENTS = {
    "Eq. 1": "energy.gibbs_distribution",
    "Eq. 2": "energy.total_energy",
    "Eq. 3": "patch_prediction.local_scores",
    "Eq. 4": "energy.coarse_energy",
    "Eq. 5": "energy.refined_energy",
    "Sec. 3.1": "bilinear_target.ambiguous_share",
    "Eq. 6": "bilinear_target.coarse_targets",
    "Sec. 3.2": "patch_prediction.patch_rearrange",
    "Eq. 7": "energy.context_energy",
    "Eq. 8": "energy.decoupled_energy",
    "Sec. 4.1": "context_crf.ring_message",
    "Eq. 9": "context_crf.mean_field_update",
    "Eq. 10": "context_crf.label_message_box_rings",
    "Eq. 11": "guided_filter.guided_filter",
    "Eq. 12": "guided_filter.dense_weights",
    "Eq. 13": "energy.decoupled_energy",
    "Eq. 14": "energy.fully_connected_energy",
    "Eq. 15": "energy.pairwise_potential",
    "Algorithm 1": "guidance_crf.guidance_crf_steps",
    "Eq. 16": "guided_filter.guided_filter_adjoint",
    "Eq. 17": "objective.regularised_objective",
    "Fig. 4": "head.head",
    "Hard mining": "objective.hard_pixels",
    "Poly schedule": "objective.poly_rate",
    "SGD": "objective.sgd_step",
    "Batch norm": "objective.recomputed_batch_norm",
    "mIoU": "objective.mean_iou",
}


def lookup(entry: str) -> Callable[..., object]:
    """Return the function of one entry of :data:`CONTENTS`."""
    module, name = CONTENTS[entry].split(".")
    function: Callable[..., object] = getattr(import_module(f"{__name__}.{module}"), name)
    return function
