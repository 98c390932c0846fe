"""The record of a run: metrics.jsonl, written and read, TensorBoard, pictures of fixed validation images."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segmodel.common import pictures
from segmodel.common.device import evaluating
from segmodel.common.errors import UserError
from segmodel.common.files import append_line, json_text, write_atomically
from segmodel.common.reading import parse_json, read_text
from segmodel.data import SegmentationData
from segmodel.inference.views import label_maps
from segmodel.model.network import Network
from segmodel.training.run_folder import Progress, RunFolder

COLUMNS = ("photograph", "truth", "guidance off", "guidance on", "boundaries")
"""Of a sheet of pictures."""
BOUNDARIES = "black in both, blue in the truth alone, red predicted alone"
"""Colours of the last column."""
LONGEST = 640
"""Pixels of the longer side of a picture in a sheet, at most: Pillow refuses to open 180 million pixels."""
JOURNAL = "SEGMODEL_MAX_JSON_BYTES"
"""The limit of metrics.jsonl and sessions.jsonl."""
Curve = list[tuple[float, float]]
"""Steps and values."""


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
    """Writes metrics.jsonl, a line an object with "kind" and "step", and the same to TensorBoard.

    A resumed run is at the step of its last checkpoint: later lines, which will come again, are dropped, and so is one
    that was cut short. started: it has a line of kind "start".
    """

    def __init__(self, folder: RunFolder, progress: Progress, *, tensorboard: bool):
        self.folder = folder
        text = read_text(folder.metrics, most=JOURNAL, errors="replace") if folder.metrics.exists() else ""
        again = set() if progress.finished else {(kind, progress.total_steps) for kind in ("val", "final")}
        kept, self.started = [], False
        for line in text.splitlines():
            with suppress(ValueError, TypeError, LookupError):
                values = parse_json(line)
                if values["step"] <= progress.step and (values["kind"], values["step"]) not in again:
                    kept.append(line + "\n")
                    self.started |= values["kind"] == "start"
        write_atomically(folder.metrics, "".join(kept))
        board, first = str(folder.path / "tensorboard"), progress.step + 1
        self.board = summary_writer()(board, purge_step=first) if tensorboard else None

    def log(self, kind: str, step: int, **values: Any) -> None:
        append_line(self.folder.metrics, json_text({"kind": kind, "step": step, **values}))
        for name, value in values.items():
            if self.board is not None and isinstance(value, float):
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, step: int, pixels: np.ndarray) -> Path:
        """Writes a sheet to pictures/step_NUMBER.png."""
        path = self.folder.picture(f"step_{step:06d}")
        path.parent.mkdir(exist_ok=True)
        pictures.save_picture(path, pixels)
        if self.board is not None:
            self.board.add_image("validation", pixels, step, dataformats="HWC")
        return path

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def read_lines(path: Path) -> list[Any]:
    """The JSON values in a file, one a line; a line that was cut short is left out.

    Raises:
        OSError: it cannot be read. ValueError: it is no text.
    """
    values = []
    for text in read_text(path, most=JOURNAL).splitlines():
        with suppress(ValueError):
            values.append(parse_json(text))
    return values


def read_metrics(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl by kind: "start", "train", "val", "final".

    Raises:
        OSError, ValueError, LookupError, TypeError: no such file, or a line that ``Journal`` does not write.
    """
    kinds: dict[str, list[dict[str, Any]]] = {"start": [], "train": [], "val": [], "final": []}
    run = RunFolder(folder)
    for line in read_lines(run.own(run.metrics)):
        kinds.setdefault(line["kind"], []).append(line)
    return kinds


def loss_curve(steps: Sequence[Mapping[str, Any]], points: int) -> tuple[Curve, int]:
    """The training loss as means over equal numbers of steps, about ``points`` of them, and that number of steps."""
    losses = [(line["step"], line["loss"]) for line in steps if line["loss"] is not None]
    size = max(1, len(losses) // points)
    means = [np.mean(losses[first : first + size], axis=0).tolist() for first in range(0, len(losses), size)]
    return [(step, loss) for step, loss in means], size


def score_curve(validations: Sequence[Mapping[str, Any]], name: str = "miou") -> Curve:
    """Validation figures in percent; NaN where there is none."""
    return [(line["step"], math.nan if line[name] is None else 100 * line[name]) for line in validations]


def validation_sheet(
    model: Network, data: SegmentationData, indices: Sequence[int], *, dtype: torch.dtype | None
) -> np.ndarray:
    """``COLUMNS`` of the chosen images, one a row, each no longer than ``LONGEST``, and their classes' colours."""
    rows, values = [], set[int]()
    for index in indices:
        sample = data[index]
        with evaluating(model):
            maps = label_maps(model, sample.image, guidance={"off": False, "on": True}, dtype=dtype)
        labels = sample.label, maps["off"], maps["on"]
        truth, off, on = (pictures.reduced(label, LONGEST, labels=True) for label in labels)
        row = pictures.row(pictures.reduced(sample.image, LONGEST), (truth, off, on), data.palette)
        rows.append([*row, pictures.boundaries(on, truth)])
        values.update(*(np.unique(label).tolist() for label in labels))
    width = sum(max(picture.shape[1] for picture in column) for column in zip(*rows, strict=True))
    legend = pictures.legend(values, data.classes, data.palette, width=width)
    return pictures.sheet(rows, headings=COLUMNS, legend=legend)
