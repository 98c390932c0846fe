"""What a run shows of itself: metrics.jsonl, TensorBoard, pictures of fixed validation images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from segmodel.common import pictures
from segmodel.common.device import evaluating
from segmodel.common.errors import UserError
from segmodel.common.files import json_text
from segmodel.data import SegmentationData
from segmodel.data.base import evenly_spaced
from segmodel.inference.views import label_maps
from segmodel.model.network import Network

COLUMNS = "input, truth, guidance off, on, boundaries: black in both, blue in the truth alone, red predicted alone"
"""What a row of a sheet shows."""
LONGEST = 640
"""Pixels of the longer side of a picture in a sheet: Pillow refuses to open sheets of 180 million pixels."""


def summary_writer() -> Any:
    """TensorBoard's writer.

    Raises:
        UserError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(f"--tensorboard: pip install segmodel[tensorboard] is needed first ({error})") from error
    return SummaryWriter


class Journal:
    """The lines of a run's metrics.jsonl, each an object with its kind and step, and the same for TensorBoard."""

    def __init__(self, folder: Path, *, tensorboard: bool, first: int = 0):
        self.folder = folder
        self.board = summary_writer()(str(folder / "tensorboard"), purge_step=first + 1) if tensorboard else None

    def log(self, kind: str, step: int, **values: Any) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json_text({"kind": kind, "step": step, **values}) + "\n")
        for name, value in values.items():
            if self.board is not None and isinstance(value, float):
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, step: int, pixels: np.ndarray) -> Path:
        """Keeps a sheet as pictures/step_NUMBER.png."""
        path = self.folder / "pictures" / f"step_{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        pictures.save_picture(path, pixels)
        if self.board is not None:
            self.board.add_image("validation", pixels, step, dataformats="HWC")
        return path

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def validation_sheet(
    model: Network, data: SegmentationData, *, palette: np.ndarray, count: int, dtype: torch.dtype | None
) -> np.ndarray:
    """``COLUMNS`` of evenly spaced images, a row each; large ones are made smaller, and labels thinned out."""
    rows = []
    for index in evenly_spaced(len(data), count):
        sample = data[index]
        with evaluating(model):
            maps = label_maps(model, sample.image, guidance={"off": False, "on": True}, dtype=dtype)
        labels = sample.label, maps["off"], maps["on"]
        truth, off, on = (pictures.reduced(label, LONGEST, labels=True) for label in labels)
        drawn = [pictures.colourise(label, palette) for label in (truth, off, on)]
        rows.append([pictures.reduced(sample.image, LONGEST), *drawn, pictures.boundaries(on, truth)])
    return pictures.sheet(rows)
