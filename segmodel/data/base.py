"""What every data set shares: samples, errors, and reading images, labels and lists of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import IGNORE
from segmodel.data.images import read_image, read_label
from segmodel.data.lists import Pair, misplaced

MAX_CLASSES = 254  # 254 marks an invalid value in the tables below, 255 is the ignore value


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    image: (H, W, 3) uint8, RGB. label: (H, W) uint8, 0..C-1, or 255 where it is ignored. name: of the file or scene.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


class SegmentationData:
    """A map-style data set of `Sample`; plain attributes only, so that loader workers can pickle it.

    name: for reports. classes: C names. palette: (C, 3) uint8, RGB. ignore_value: always 255; other values that a
    data set ignores are mapped to it when a label is read.
    """

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray
    ignore_value: int = IGNORE

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def problems(self) -> dict[int, str]:
        """What is wrong with samples that need not be read to see it: index -> one line."""
        return {}


class FileData(SegmentationData):
    """Samples read from files; labels are validated on every read.

    pairs: the files, which lie in `root`. values: maps label values (0..255) to classes: (256,) uint8 with 254 where a
        value is not allowed.
    colours: None, or (K, 3) uint8: labels are then RGB or grey pictures, and row i stands for values[i].
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        palette: np.ndarray,
        root: Path,
        pairs: Sequence[Pair],
        values: np.ndarray,
        colours: np.ndarray | None = None,
    ) -> None:
        self.name, self.classes, self.palette = name, tuple(classes), np.asarray(palette, np.uint8)
        self.root, self.pairs, self.values, self.colours = root, list(pairs), values, colours

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, orientation = read_image(pair.image)
        label = self.read_label(pair.label)
        if label.shape != image.shape[:2]:
            hint = f" (EXIF orientation {orientation} of the image is not applied)" if orientation > 1 else ""
            raise DataError(
                f"{pair.label}: expected the size of its image {pair.image}, {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}{hint}"
            )
        return Sample(image, label, pair.name)

    def read_label(self, path: Path) -> np.ndarray:
        return read_label(path, values=self.values, colours=self.colours)

    def problems(self) -> dict[int, str]:
        where = [pair.where for pair in self.pairs]
        wrong = misplaced(self.root, [pair.image for pair in self.pairs])
        wrong = misplaced(self.root, [pair.label for pair in self.pairs]) | wrong
        return {index: f"{where[index]}: {wrong[index]}".removeprefix(": ") for index in sorted(wrong)}


def evenly_spaced(length: int, count: int) -> list[int]:
    """``count`` different numbers of 0..length - 1, evenly spaced, both ends among them; all of them for 0."""
    return np.linspace(0, length - 1, min(count or length, length)).astype(int).tolist()


class MixedData(SegmentationData):
    """Data sets of the same classes one after the other; a part that is named twice is seen twice as often."""

    def __init__(self, parts: Sequence[SegmentationData], *, name: str) -> None:
        first = parts[0]
        self.name, self.classes, self.palette, self.parts = name, first.classes, first.palette, tuple(parts)
        self.ends = np.cumsum([len(part) for part in parts])
        for part in parts[1:]:
            if part.classes != first.classes:
                raise DataError(f"data: expected the classes of {_classes(first)}, got those of {_classes(part)}")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0..{len(self) - 1}, got {index}")
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][index - int(self.ends[part]) + len(self.parts[part])]

    def problems(self) -> dict[int, str]:
        starts = [int(end) - len(part) for end, part in zip(self.ends, self.parts, strict=True)]
        found = {id(part): part.problems() for part in self.parts}
        pairs = zip(starts, self.parts, strict=True)
        return {start + index: line for start, part in pairs for index, line in found[id(part)].items()}


def _classes(data: SegmentationData) -> str:
    names = ", ".join(data.classes[:3])
    return f"{data.name} ({len(data.classes)}: {names}{', ...' if len(data.classes) > 3 else ''})"
