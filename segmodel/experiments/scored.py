"""Scores of any model on labelled images: out of a folder of files, or from a run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segmodel.common.device import autocast, autocast_dtype, choose_device, place, to_batch
from segmodel.common.errors import UserError
from segmodel.common.terminal import say
from segmodel.data import Sample, SegmentationData
from segmodel.data.base import evenly_spaced
from segmodel.evaluation.evaluate import check_classes
from segmodel.evaluation.tuning import Labelled
from segmodel.inference.inputs import read_scores, scores_and_pixels
from segmodel.model.network import Network
from segmodel.model.store import find_checkpoint, load_network


def scores_of(source: str, device: str, data: SegmentationData) -> Callable[[Sample], np.ndarray]:
    """Logits of a sample: out of a folder of NAME.npy files, or from a run on the data's classes, guidance off."""
    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        marks: dict[str, int] = {}

        def read(sample: Sample) -> np.ndarray:
            file, mark = folder / f"{sample.name}.npy", hash(sample.image.tobytes())
            if marks.setdefault(sample.name, mark) != mark:
                raise UserError(f"{file}: expected pictures of different names, got two that are named {sample.name}")
            return read_scores(file)

        return read
    place_, file = choose_device(device), find_checkpoint(source)
    say(f"scores of {file}")
    model, dtype = place(load_network(file, Network), place_), autocast_dtype("auto", place_)
    check_classes(source, model.classes, data)

    @torch.inference_mode()
    def scores(sample: Sample) -> np.ndarray:
        with autocast(place_, dtype):
            logits: Tensor = model(to_batch(sample.image[None].copy(), place_), guidance=False)
        return logits[0].float().cpu().numpy()

    return scores


def labelled(
    data: SegmentationData, limit: int, scores: Callable[[Sample], np.ndarray], name: str
) -> Iterator[Labelled]:
    """Evenly spaced samples (0: all) with their scores."""
    for index in tqdm(evenly_spaced(len(data), limit), desc=name, unit="image", disable=None):
        sample = data[index]
        logits = scores(sample)
        if logits.ndim != 3 or 0 in logits.shape or len(logits) != len(data.classes):
            raise UserError(f"{sample.name}: expected scores of {len(data.classes)} classes, got {logits.shape}")
        try:
            scores_and_pixels(logits, sample.image)
        except ValueError as error:
            raise UserError(f"{sample.name}: {error}") from error
        yield logits, sample.image, sample.label
