"""Predict and count: the figures of one model, or of an ensemble, on a data set."""

import dataclasses
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from segmodel.common import distributed
from segmodel.common.device import evaluating
from segmodel.common.errors import UserError, printable
from segmodel.common.files import json_text
from segmodel.common.terminal import say
from segmodel.data import SegmentationData
from segmodel.data.base import evenly_spaced
from segmodel.evaluation.boundary import boundary_counts, trimap_counts
from segmodel.evaluation.metrics import Scores, class_counts, confusion_matrix, scores
from segmodel.inference.views import CONFIGURED, Guidance, InferenceConfig, predict_images, same_size_batches
from segmodel.model.network import Network


@dataclass(frozen=True)
class Evaluation:
    """One result on N images, as int64 counts of each (see ``metrics``).

    counts: ``(N, 3, C)``, of all pixels. boundary: ``(N, 3, C)``, whose IoU is Boundary IoU, or empty. trimap:
    ``(N, len(widths), 3, C)``, of the pixels within each width of a true boundary. seconds: ``(N,)``, from scores to
    labels, backbone and context CRF not included. labels: ``(H, W)`` uint8 of the images that were to be shown.
    confusion: ``(C, C)`` of all images together, rows the truth, or None where it was not asked for.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    boundary: np.ndarray
    trimap: np.ndarray
    seconds: np.ndarray
    labels: tuple[np.ndarray, ...] = ()
    widths: tuple[int, ...] = ()
    confusion: np.ndarray | None = None

    @property
    def scores(self) -> Scores:
        return scores(self.counts.sum(0))


class Counter:
    """Counts one image after the other; ``evaluation()`` is the result on all of them.

    Args:
        boundary: share of the diagonal for Boundary IoU; None leaves it out. widths: of the trimaps, in pixels.
        confusion: whether pairs of classes are counted too.
    """

    def __init__(
        self, num_classes: int, *, boundary: float | None = None, widths: Sequence[int] = (), confusion: bool = False
    ):
        self.confusion = np.zeros((num_classes, num_classes), np.int64) if confusion else None
        self.num_classes, self.ratio, self.widths = num_classes, boundary, tuple(widths)
        self.names: list[str] = []
        self.parts: dict[str, list] = {name: [] for name in ("counts", "boundary", "trimap", "seconds", "labels")}

    def add(
        self, prediction: np.ndarray, label: np.ndarray, *, name: str = "", seconds: float = 0.0, shown: bool = False
    ) -> None:
        """Counts an image; ``shown``: its predicted labels are kept."""
        classes, parts = self.num_classes, self.parts
        self.names.append(name)
        parts["counts"].append(class_counts(prediction, label, classes))
        parts["seconds"].append(seconds)
        if self.confusion is not None:
            self.confusion += confusion_matrix(prediction, label, classes)
        if self.ratio is not None:
            parts["boundary"].append(boundary_counts(prediction, label, classes, ratio=self.ratio))
        if self.widths:
            parts["trimap"].append(trimap_counts(prediction, label, classes, widths=self.widths))
        if shown:
            parts["labels"].append(prediction)

    def evaluation(self) -> Evaluation:
        images, classes, parts = len(self.names), self.num_classes, self.parts
        counts, boundary = (np.array(parts[part], np.int64).reshape(-1, 3, classes) for part in ("counts", "boundary"))
        trimap = np.array(parts["trimap"], np.int64).reshape(images, len(self.widths), 3, classes)
        seconds = np.array(parts["seconds"], np.float64)
        names, labels = tuple(self.names), tuple(parts["labels"])
        return Evaluation(names, counts, boundary, trimap, seconds, labels, self.widths, self.confusion)


@dataclass(frozen=True)
class Whole:
    """One result on N images, of all processes together.

    counts: ``(N, 3, C)`` int64 of the images in the data's order (see ``metrics``). confusion: as of ``Evaluation``.
    """

    counts: np.ndarray
    confusion: np.ndarray | None

    @property
    def scores(self) -> Scores:
        return scores(self.counts.sum(0))


def evaluate_images(
    models: Sequence[Network],
    data: SegmentationData,
    *,
    guidance: Mapping[str, Guidance | Sequence[Guidance]] = CONFIGURED,
    config: InferenceConfig | None = None,
    dtype: torch.dtype | None = None,
    boundary: float | None = None,
    widths: Sequence[int] = (),
    shown: Collection[int] = (),
    images: int = 0,
    confusion: bool = False,
    description: str = "evaluate",
    leave: bool = True,
) -> dict[str, Evaluation]:
    """Evaluates one model or an ensemble on a data set, once for each kind of guidance, by its title.

    Args:
        models: in evaluation mode, of the data's classes.
        guidance, config, dtype: see ``predict_images``.
        boundary, widths, confusion: see ``Counter``.
        shown: numbers of the samples whose labels are kept.
        images: evaluate only so many, evenly spaced (0: all).
        description, leave: of the progress bar.

    Several processes share the images; each gets the results of its own.
    """
    config = config or InferenceConfig()
    chosen = evenly_spaced(len(data), images)[distributed.rank() :: distributed.world_size()]
    options: dict[str, Any] = {"boundary": boundary, "widths": widths, "confusion": confusion}
    counters = {title: Counter(len(data.classes), **options) for title in guidance}
    samples = ((index, data[index]) for index in chosen)
    quiet = None if distributed.is_writer() else True
    with tqdm(total=len(chosen), desc=printable(description), unit="image", leave=leave, disable=quiet) as progress:
        for batch, pixels in same_size_batches(samples, config.batch_size, image=lambda pair: pair[1].image):
            found = predict_images(models, pixels, guidance=guidance, config=config, dtype=dtype)
            for title, prediction in found.items():
                start = time.perf_counter()
                maps = prediction.labels()
                seconds = (prediction.seconds + time.perf_counter() - start) / len(batch)
                for labels, (index, sample) in zip(maps, batch, strict=True):
                    counters[title].add(labels, sample.label, name=sample.name, seconds=seconds, shown=index in shown)
            progress.update(len(batch))
    return {title: counter.evaluation() for title, counter in counters.items()}


def evaluate(
    model: Network,
    data: SegmentationData,
    *,
    guidance: Mapping[str, Guidance] = CONFIGURED,
    dtype: torch.dtype | None = None,
    images: int = 0,
    description: str = "evaluate",
    leave: bool = True,
) -> dict[str, Scores]:
    """Scores of one model on whole images, see ``evaluate_images``; the model, and each part of it, stays in its mode.

    Several processes share the images; each gets all scores.
    """
    found = evaluate_whole(
        model, data, guidance=guidance, dtype=dtype, images=images, description=description, leave=leave
    )
    return {title: result.scores for title, result in found.items()}


def evaluate_whole(
    model: Network,
    data: SegmentationData,
    *,
    guidance: Mapping[str, Guidance] = CONFIGURED,
    dtype: torch.dtype | None = None,
    images: int = 0,
    confusion: bool = False,
    description: str = "evaluate",
    leave: bool = True,
) -> dict[str, Whole]:
    """As ``evaluate``, with the counts of each image and, if asked for, the confusion matrix."""
    with evaluating(model):
        found = evaluate_images(
            [model], data, guidance=guidance, dtype=dtype, images=images, confusion=confusion, description=description,
            leave=leave,
        )  # fmt: skip
    device = next(model.parameters()).device
    length, world = len(evenly_spaced(len(data), images)), distributed.world_size()

    def everywhere(part: np.ndarray) -> np.ndarray:
        return distributed.total(torch.from_numpy(part).to(device)).cpu().numpy()

    whole = {}
    for title, result in found.items():
        counts = np.zeros((length, *result.counts.shape[1:]), np.int64)
        counts[distributed.rank() :: world] = result.counts
        confused = result.confusion
        whole[title] = Whole(everywhere(counts), None if confused is None else everywhere(confused))
    return whole


def check_classes(path: str | Path, classes: Sequence[str], data: SegmentationData) -> None:
    """Checks that a checkpoint's classes are as many as the data's; if some names differ, a warning is printed.

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
            say(f"warning: {text}; classes are compared by number", error=True)
            return


def result_json(scores: Scores, classes: Sequence[str]) -> dict:
    """Scores as JSON values; NaN (an absent class) becomes null."""
    values = dataclasses.asdict(scores)
    values["iou"] = dict(zip(classes, scores.iou, strict=True))
    return json.loads(json_text(values))


def class_numbers(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Numbers of the named classes, each once; UserError for a name that is no class."""
    for name in names:
        if name not in classes:
            raise UserError(f"--classes: expected some of {', '.join(classes)}, got {name!r}")
    return [classes.index(name) for name in dict.fromkeys(names)]
