"""Which guidance suits a trained network: found on training pictures that it has not seen (``--hold-out``).

On the pictures that it is trained on the network leaves a guidance CRF little to mend, so that training lowers the
CRF's weight; and on others the likelihood that training goes by is more about how sure the scores are than about which
label wins. So the choice is by mean IoU, on pictures held out: no guidance; the CRF as trained; an untrained one whose
settings follow from each picture's scores; or one with settings tuned to the data.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from segmodel.common.device import evaluating
from segmodel.data import SegmentationData
from segmodel.evaluation.evaluate import Counter
from segmodel.evaluation.metrics import mean_iou
from segmodel.evaluation.tuning import VALUES, Labelled, settings_text, tune_refinement
from segmodel.inference.refine import refine
from segmodel.inference.views import InferenceConfig, coarse_scores
from segmodel.model.network import Network
from segmodel.model.untrained_crf import Refinement

SEARCHED = {name: VALUES[name] for name in ("radius", "weight", "balance")}


@dataclass(frozen=True)
class Found:
    """What was chosen, and the mean IoU (0..1) of everything that could have been, on so many pictures."""

    choice: dict[str, Any]
    figures: dict[str, float]
    images: int

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {100 * value:.2f}" for name, value in self.figures.items())
        settings = settings_text(self.choice.get("settings", {}))
        return (f"guidance, on {self.images} pictures held out: mIoU {figures}: {self.choice['way']}"
                + f" ({settings})" * bool(settings))  # fmt: skip


@torch.inference_mode()
def choose_guidance(model: Network, data: SegmentationData, *, dtype: torch.dtype | None = None) -> Found:
    """The guidance with the best mean IoU on labelled pictures; see the head of this file.

    Tuned settings count only where they beat those from the scores for sure: the paired 95 % interval lies above 0.
    """
    samples, trained = list[Labelled](), Counter(len(data.classes))
    stride, crf, joint = model.head.guidance_stride, model.head.crf, model.head.guidance == "joint"
    with evaluating(model):
        for sample in (data[index] for index in range(len(data))):
            scores = coarse_scores(model, sample.image[None], config=InferenceConfig(), dtype=dtype)[0].float()
            if joint:
                labels = refine(scores, sample.image, crf=crf, stride=stride).argmax(0)
                trained.add(labels.cpu().numpy().astype(np.uint8), sample.label)
            samples.append((scores.cpu().numpy(), sample.image, sample.label))
    tuned = tune_refinement(samples, start=Refinement(stride=stride), values=SEARCHED)
    figures = {"none": tuned.before, "from the scores": tuned.started, "tuned": tuned.after}
    if joint:
        figures["trained"] = float(mean_iou(trained.evaluation().counts.sum(0)))
    counted = {way: value for way, value in figures.items() if way != "tuned" or tuned.over_start.low > 0}
    way = max(counted, key=counted.__getitem__)
    settings = asdict({"tuned": tuned.settings}.get(way, Refinement()))
    del settings["stride"]  # the model's own
    return Found({"way": way} | ({} if way in ("none", "trained") else {"settings": settings}), figures, len(data))
