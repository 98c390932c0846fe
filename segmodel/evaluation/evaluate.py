"""Predict and count: the figures of one model, or of an ensemble, on a data set."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from segmodel.common import distributed
from segmodel.common.device import evaluating
from segmodel.common.errors import UserError
from segmodel.common.files import json_text
from segmodel.data import SegmentationData
from segmodel.data.base import evenly_spaced
from segmodel.evaluation.boundary import boundary_counts, trimap_counts
from segmodel.evaluation.metrics import ConfusionMatrix, Scores, scores
from segmodel.inference.views import InferenceConfig, predict_images, same_size_batches
from segmodel.model.network import Network


@dataclass(frozen=True)
class Evaluation:
    """One result on N images: int64 counts ``(N, 3, C)`` (see ``metrics``), of all pixels and of those at boundaries.

    ``boundary``: counts whose IoU is Boundary IoU. ``trimap``: by width. Both are empty where they were not asked for.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    boundary: np.ndarray
    trimap: dict[int, np.ndarray]

    @property
    def scores(self) -> Scores:
        return scores(self.counts.sum(0))


def evaluate_images(
    models: Sequence[Network],
    data: SegmentationData,
    *,
    modes: Sequence[bool | None] = (None,),
    config: InferenceConfig | None = None,
    dtype: torch.dtype | None = None,
    boundary: float | None = None,
    widths: Sequence[int] = (),
    description: str = "evaluate",
    leave: bool = True,
    limit: int = 0,
) -> list[Evaluation]:
    """Evaluates one model or an ensemble on a data set, once for each ``guidance`` mode (None: as configured).

    Args:
        models: in evaluation mode, of the data's classes.
        config, dtype: see ``predict_images``.
        boundary: share of the diagonal for Boundary IoU; None leaves it out.
        widths: of the trimaps, in pixels.
        limit: so many evenly spaced images only.

    Several processes share the images; each gets the results of its own.
    """
    config = config or InferenceConfig()
    chosen = evenly_spaced(len(data), limit)[distributed.rank() :: distributed.world_size()]
    quiet = None if distributed.is_writer() else True
    classes = len(data.classes)
    names: list[str] = []
    counts: list[list[np.ndarray]] = [[] for _ in modes]
    edges: list[list[np.ndarray]] = [[] for _ in modes]
    bands: list[list[list[np.ndarray]]] = [[] for _ in modes]
    samples = (data[index] for index in chosen)
    with tqdm(total=len(chosen), desc=description, unit="image", leave=leave, disable=quiet) as progress:
        for batch, images in same_size_batches(samples, config.batch_size, image=lambda sample: sample.image):
            names += [sample.name for sample in batch]
            for mode, found in enumerate(predict_images(models, images, modes=modes, config=config, dtype=dtype)):
                for prediction, sample in zip(found.labels(), batch, strict=True):
                    matrix = ConfusionMatrix(classes)
                    matrix.update(prediction, sample.label)
                    counts[mode].append(matrix.class_counts())
                    if boundary is not None:
                        edges[mode].append(boundary_counts(prediction, sample.label, classes, ratio=boundary))
                    if widths:
                        bands[mode].append(trimap_counts(prediction, sample.label, classes, widths=widths))
            progress.update(len(batch))
    return [
        Evaluation(
            tuple(names), np.array(counts[mode], np.int64).reshape(-1, 3, classes), np.array(edges[mode]),
            {width: np.stack([image[index] for image in bands[mode]]) for index, width in enumerate(widths)},
        )
        for mode in range(len(modes))
    ]  # fmt: skip


def evaluate(
    model: Network,
    data: SegmentationData,
    *,
    modes: Sequence[bool | None] = (None,),
    dtype: torch.dtype | None = None,
    description: str = "evaluate",
    leave: bool = True,
    limit: int = 0,
) -> list[Scores]:
    """Scores of one model on whole images; see ``evaluate_images``. Each part of the model stays in its mode.

    Several processes share the images; each gets all scores.
    """
    with evaluating(model):
        found = evaluate_images(
            [model], data, modes=modes, dtype=dtype, description=description, leave=leave, limit=limit
        )
    device = next(model.parameters()).device
    counts = (torch.from_numpy(result.counts.sum(0)).to(device) for result in found)
    return [scores(distributed.total(part).cpu().numpy()) for part in counts]


def check_classes(path: str | Path, classes: Sequence[str], data: SegmentationData) -> None:
    """As many classes as the data has, in its order; other names are let through with a warning.

    Raises:
        UserError: another number of classes, or the same names in another order.
    """
    if len(classes) != len(data.classes):
        raise UserError(f"{path}: trained on {len(classes)} classes, but {data.name} has {len(data.classes)}")
    for number, (own, other) in enumerate(zip(classes, data.classes, strict=True)):
        if own != other:
            text = f"{path}: class {number} is {own!r}, in {data.name} {other!r}"
            if set(classes) == set(data.classes):
                raise UserError(f"{text}: the same names in another order")
            print(f"warning: {text}; classes are compared by number", file=sys.stderr)
            return


def result_json(scores: Scores, classes: Sequence[str]) -> dict:
    """Scores as JSON values; NaN (an absent class) becomes null."""
    values = dataclasses.asdict(scores)
    values["iou"] = dict(zip(classes, scores.iou, strict=True))
    return json.loads(json_text(values))


def class_numbers(names: str | None, classes: Sequence[str]) -> list[int]:
    """Numbers of the classes named in "a, b"; none where nothing is named."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(","))) if names else []
    for name in wanted:
        if name not in classes:
            raise UserError(f"--classes: expected some of {', '.join(classes)}, got {name!r}")
    return [classes.index(name) for name in wanted]
