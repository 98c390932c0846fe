"""What all data sets have in common: samples, sets read from lists of files, and mixes of sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import DataError, UserError
from segmodel.common.labels import IGNORE
from segmodel.data.images import label_of, read_image, read_label
from segmodel.data.lists import Pair, misplaced

MAX_CLASSES = 254  # 254 marks values that are not allowed, 255 is the ignored label


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    image: (H, W, 3) uint8, RGB. label: (H, W) uint8, 0..C-1 or 255 (ignored). name: of the file or scene.
    turned: what the EXIF orientation of the file has turned upright: nothing (""), the "image", or "both".
    """

    image: np.ndarray
    label: np.ndarray
    name: str
    turned: str = ""


class SegmentationData:
    """A map-style data set of `Sample`; plain attributes only, so that loader workers can pickle it.

    name: for reports. classes: C names. palette: (C, 3) uint8, RGB. ignore_value: always 255; other values that a
    data set ignores become 255 when a label is read.
    notes: what users of the set should be told, a line each.
    mean_score: what the set's challenge calls the mean of mIoU and pixel accuracy, if it ranks by that.
    """

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray
    ignore_value: int = IGNORE
    notes: Sequence[str] = ()
    mean_score: str = ""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def label(self, index: int) -> np.ndarray:
        """The label map of a sample alone, whose picture need not be read; it may lie as stored, not turned upright."""
        return self[index].label

    def problems(self) -> dict[int, str]:
        """Samples that are known to be wrong before they are read: index -> one line."""
        return {}

    def sources(self) -> tuple[SegmentationData, ...]:
        """The sets that a mix consists of, mixes within it resolved; of any other set the set itself."""
        return (self,)

    def rules(self) -> list[Any]:
        """What the samples depend on besides files, as JSON values."""
        return []

    def files(self) -> list[Path]:
        """The files that samples are read from."""
        return []

    def facts(self) -> list[Any]:
        """What pixels and labels depend on, as JSON values.

        For each of the sources its name, classes, rules, and name, size and modification time of its files.
        """
        return [[one.name, one.classes, one.rules(), [_state(file) for file in one.files()]] for one in self.sources()]


def _state(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns


@dataclass(eq=False)
class FileData(SegmentationData):
    """Samples read from pairs of files; labels are checked at each read.

    pairs: the files, all in `root`.
    values: (256,) uint8, the class of each label value, 254 where a value is not allowed.
    colours: None, or (K, 3) uint8: labels are then RGB or grey pictures, and colour i stands for class values[i].
    value_hint: ends the message of a label value that is not allowed.
    """

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray
    root: Path
    pairs: list[Pair]
    values: np.ndarray
    colours: np.ndarray | None = None
    value_hint: str = ""
    notes: Sequence[str] = ()
    mean_score: str = ""

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, orientation = read_image(pair.image)
        label, turned = label_of(image, orientation, self.read_label(pair.label))
        if label.shape != image.shape[:2]:
            hint = f" (EXIF orientation {orientation} of the image is applied)" if orientation > 1 else ""
            raise DataError(
                f"{pair.label}: expected the size of its image {pair.image}, {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}{hint}"
            )
        return Sample(image, label, pair.name, turned)

    def label(self, index: int) -> np.ndarray:
        return self.read_label(self.pairs[index].label)

    def read_label(self, path: Path) -> np.ndarray:
        return read_label(path, values=self.values, colours=self.colours, hint=self.value_hint)

    def rules(self) -> list[Any]:
        return [self.values.tolist(), None if self.colours is None else self.colours.tolist()]

    def files(self) -> list[Path]:
        return [file for pair in self.pairs for file in (pair.image, pair.label)]

    def problems(self) -> dict[int, str]:
        wrong = misplaced(self.root, [pair.image for pair in self.pairs])
        wrong = misplaced(self.root, [pair.label for pair in self.pairs]) | wrong
        return {index: f"{self.pairs[index].where}: {wrong[index]}" for index in sorted(wrong)}


def evenly_spaced(length: int, count: int) -> list[int]:
    """`count` different integers from 0..length - 1, evenly spaced from end to end; all of them if `count` is 0."""
    return np.linspace(0, length - 1, min(count or length, length)).astype(int).tolist()


class PartOfData(SegmentationData):
    """Some samples of a data set, in the order of their indices there."""

    def __init__(self, whole: SegmentationData, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, list(indices)
        self.name, self.classes, self.palette = whole.name, whole.classes, whole.palette
        self.notes, self.mean_score = whole.notes, whole.mean_score

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[self.indices[index]]

    def label(self, index: int) -> np.ndarray:
        return self.whole.label(self.indices[index])

    def sources(self) -> tuple[SegmentationData, ...]:
        return self.whole.sources()

    def problems(self) -> dict[int, str]:
        found = self.whole.problems()
        return {place: found[index] for place, index in enumerate(self.indices) if index in found}


def set_apart(data: SegmentationData, count: int, *, flag: str) -> tuple[SegmentationData, SegmentationData]:
    """The rest of a data set, and ``count`` evenly spaced samples that are taken out of it.

    Raises:
        UserError: not more than so many are there; the message opens with ``flag``.
    """
    if count == 0:
        return data, PartOfData(data, [])
    if count >= len(data):
        raise UserError(f"{flag}: expected less than the {len(data)} pictures of {data.name}, got {count}")
    apart = evenly_spaced(len(data), count)
    return PartOfData(data, sorted(set(range(len(data))) - set(apart))), PartOfData(data, apart)


class MixedData(SegmentationData):
    """Data sets of the same classes, one after the other; a part that is given twice is seen twice as often."""

    def __init__(self, parts: Sequence[SegmentationData], *, name: str) -> None:
        first = parts[0]
        self.name, self.classes, self.palette, self.parts = name, first.classes, first.palette, tuple(parts)
        self.ends = np.cumsum([len(part) for part in parts])
        self.notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        for part in parts[1:]:
            if part.classes != first.classes:
                raise DataError(f"data: expected the classes of {_classes(first)}, got those of {_classes(part)}")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Sample:
        part, place = self._place(index)
        return part[place]

    def label(self, index: int) -> np.ndarray:
        part, place = self._place(index)
        return part.label(place)

    def _place(self, index: int) -> tuple[SegmentationData, int]:
        """The part that holds a sample, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0..{len(self) - 1}, got {index}")
        number = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[number]
        return part, index - int(self.ends[number]) + len(part)

    def sources(self) -> tuple[SegmentationData, ...]:
        return tuple(source for part in self.parts for source in part.sources())

    def problems(self) -> dict[int, str]:
        found = {part: part.problems() for part in set(self.parts)}
        starts = [int(end) - len(part) for end, part in zip(self.ends, self.parts, strict=True)]
        pairs = zip(starts, self.parts, strict=True)
        return {start + index: line for start, part in pairs for index, line in found[part].items()}


def _classes(data: SegmentationData) -> str:
    names = ", ".join(data.classes[:3])
    return f"{data.name} ({len(data.classes)}: {names}{', ...' if len(data.classes) > 3 else ''})"
