"""YOLO's segmentation text: a line a polygon, CLASS X Y X Y X Y ..., in shares of the picture's width and height.

Where polygons overlap, the one of fewer pixels lies on top, as in YOLO's own trainer. An empty file is a picture of
background; so is what no polygon covers. The names of the classes stand in data.yaml or classes.txt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError, one_line
from segmodel.common.reading import open_file
from segmodel.data.importing import shapes
from segmodel.data.importing.names import class_names, text_of
from segmodel.data.importing.source import Found, Item, Source, Value
from segmodel.data.importing.tree import File, Tree, pair

_LINE = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}\s*", re.IGNORECASE)


@dataclass
class Yolo(Source):
    """Labels as text files; value 0 is background, value n + 1 is YOLO's class n."""

    names: dict[int, str] = field(default_factory=dict)
    named_in: Path | None = None

    def label(self, item: Item, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        label = np.zeros(size, np.int32)
        masks = []
        for number, line in enumerate(text_of(item.label).splitlines(), start=1):
            if line.strip():
                where = f"{item.label}, line {number}"
                value, corners = self._polygon(line.split(), where)
                try:
                    points = shapes.checked_points(corners * (width, height), height, width, least=3)
                except ValueError as error:
                    raise DataError(f"{where}: {one_line(error)}; YOLO's points are shares, 0..1") from error
                mask = shapes.polygon(points, height, width)
                masks.append((int(mask.sum()), value, mask))
        for _, value, mask in sorted(masks, key=lambda one: -one[0]):
            label[mask] = value
        return label

    def _polygon(self, words: list[str], where: str) -> tuple[int, np.ndarray]:
        if len(words) == 5:
            raise DataError(f"{where}: expected a polygon, CLASS X Y X Y X Y ..., got a box (labels for detection)")
        if not re.fullmatch("[0-9]{1,9}", words[0]) or len(words) < 7 or len(words) % 2 == 0:
            raise DataError(f"{where}: expected a polygon, CLASS X Y X Y X Y ..., got {' '.join(words)!r:.60}")
        value = int(words[0])
        if (self.names and value not in self.names) or value > 1 << 16:
            known = f"{self.named_in} names {min(self.names)} to {max(self.names)}" if self.names else "at most 65536"
            raise DataError(f"{where}: class {words[0]:.20}, but {known}")
        try:
            return value + 1, np.array(words[1:], np.float64).reshape(-1, 2)
        except ValueError as error:
            raise DataError(f"{where}: {one_line(error)}") from error

    def values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        numbers = sorted({*self.names, *(value - 1 for value in found if value)})
        names = {number: self.names.get(number, f"class_{number}") for number in numbers}
        return {0: Value("background")} | {number + 1: Value(names[number], (str(number),)) for number in numbers}


def yolo_files(tree: Tree) -> list[File]:
    """The text files that hold such lines, and empty ones beside them."""
    found, empty = [], []
    for file in tree.ending(".txt"):
        with open_file(file.path, most="SEGMODEL_MAX_JSON_BYTES") as opened:
            start = opened.read(4096).decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
        line = start.partition("\n")[0]
        if not start:
            empty.append(file)
        elif _LINE.match(line):
            found.append(file)
    return [*found, *(file for file in empty if any(file.path.parent == other.path.parent for other in found))]


def open_yolo(tree: Tree, files: list[File]) -> Yolo:
    pairing = pair(tree.pictures, files)
    items = [Item(image.name, image.path, label.path, image.split()) for image, label in pairing.pairs]
    file, names = class_names(tree)
    return Yolo("yolo", items, pairing.notes(), names=names, named_in=file)
