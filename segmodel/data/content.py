"""What the label maps of a data set hold: pixels of each class, and what keeps a model from learning anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from segmodel.common import distributed
from segmodel.common.errors import DataError
from segmodel.common.labels import IGNORE
from segmodel.data.base import SegmentationData
from segmodel.data.loading import loaded

SECONDS = 60.0
"""How long a training looks for the classes in its labels before it starts without having found them all."""


@dataclass(eq=False)
class Content:
    """Counts over label maps.

    pixels: (256,) int64, pixels of each label value, 255 being ignored. images: (256,) int64, label maps that have it.
    beside: (256,) int64, pixels that are not ignored, of whatever class, in those label maps; pixels / beside is what
        median frequency balancing calls a class's frequency.
    maps: label maps counted. mixed: those of more than one class.
    """

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    beside: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    maps: int = 0
    mixed: int = 0

    def add(self, counts: np.ndarray) -> None:
        """Adds one label map, of which ``counts`` (256,) are the pixels of each value."""
        self.pixels += counts
        self.images += counts > 0
        self.beside += (counts > 0) * counts[:IGNORE].sum()
        self.maps += 1
        self.mixed += int(np.count_nonzero(counts[:IGNORE]) > 1)

    def join(self, other: Content) -> None:
        """Adds the counts of other label maps."""
        for name in ("pixels", "images", "beside", "maps", "mixed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def absent(self, classes: Sequence[str]) -> list[str]:
        """The classes without a pixel."""
        return [name for name, count in zip(classes, self.images, strict=False) if not count]

    def is_ignored_mask(self) -> bool:
        """Whether class 0 and ignored pixels are all there is, as where a mask's 255 is taken as ignored."""
        return bool(np.array_equal(np.flatnonzero(self.images), [0, IGNORE]))

    def faults(self, classes: Sequence[str]) -> list[str]:
        """Why a model that is trained on these labels would not learn its classes, a line each; none if it can."""
        lines = []
        if absent := self.absent(classes):
            names = ", ".join(absent[:5]) + f" and {len(absent) - 5} more" * (len(absent) > 5)
            hint = f"; {MASK_HINT}" if self.is_ignored_mask() else ""
            lines.append(f"no pixel of {names} in {self.maps} label maps{hint}")
        if not self.mixed:
            hint = f"; {MASK_HINT}" if self.is_ignored_mask() and not absent else ""
            lines.append(f"each of {self.maps} label maps is all of one class{hint}")
        return lines


MASK_HINT = (
    "are these masks of 0 and 255, whose 255 is taken as ignored? "
    "In a folder's classes.toml map = { 255 = 1 } makes it class 1"
)


def label_counts(label: np.ndarray) -> np.ndarray:
    """Pixels of each value of a label map, (256,) int64."""
    return np.bincount(label.ravel(), minlength=256)


class _Counts:
    """The counts of the label map of each index; a class of its own, so that a worker process can be given it."""

    def __init__(self, data: SegmentationData) -> None:
        self.data = data

    def __call__(self, index: int) -> np.ndarray:
        return label_counts(self.data.label(index))


def _read(data: SegmentationData, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
    processes = distributed.local_processes()
    counts: Iterable[np.ndarray | DataError] = loaded(_Counts(data), indices, workers=workers, processes=processes)
    bar = tqdm(counts, total=len(indices), desc="labels", unit="image", leave=False, disable=None)
    for item in bar:
        if isinstance(item, DataError):
            raise item
        yield item


def class_pixels(data: SegmentationData, *, workers: int) -> Content:
    """Counts over all label maps of a data set; its pictures are not read.

    A part that a mix holds twice counts twice, as it does in training. In a distributed run the first process reads,
    and all of them get the counts.

    Raises:
        DataError: a label that cannot be read.
    """
    content, lines = Content(), []
    if distributed.is_writer():
        try:
            for counts in _read(data, range(len(data)), workers):
                content.add(counts)
        except DataError as error:
            lines = list(error.args)
    content, lines = distributed.from_writer((content, lines))
    if lines:
        raise DataError(*lines)
    return content


def require_learnable(data: SegmentationData, *, name: str, workers: int, seconds: float = SECONDS) -> None:
    """Looks through the labels, in random order, until each class has been seen and a label map of two classes.

    Where that takes longer than ``seconds``, nothing is said of what has not been seen yet. In a distributed run the
    first process looks, and all raise what it finds.

    Args:
        name: of the data, for the message.

    Raises:
        DataError: a class has no pixel, each label map is all of one class, or a label that cannot be read.
    """
    lines = _faults(data, name, workers, seconds) if distributed.is_writer() else []
    if lines := distributed.from_writer(lines):
        raise DataError(*lines)


def _faults(data: SegmentationData, name: str, workers: int, seconds: float) -> list[str]:
    content, end = Content(), time.monotonic() + seconds
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    try:
        for counts in _read(data, order, workers):
            content.add(counts)
            if time.monotonic() > end or not content.faults(data.classes):
                return []
    except DataError as error:
        return list(error.args)
    return [f"{name}, train: {line} (--allow-absent trains all the same)" for line in content.faults(data.classes)]
