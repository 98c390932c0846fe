"""SBD's .mat files and others that hold GTcls.Segmentation: 0 is background, 1 to 20 are VOC's classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import voc_palette
from segmodel.data.importing.source import Colour, Found, Item, Source, Value
from segmodel.data.importing.tree import File, Tree, pair
from segmodel.data.voc import CLASSES, read_mat


class Sbd(Source):
    """Labels in MATLAB files."""

    def label(self, item: Item, size: tuple[int, int]) -> np.ndarray:
        return read_mat(item.label).astype(np.int32)

    def values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        if strange := [number for number in sorted(found) if not 0 <= number < len(CLASSES)]:
            raise DataError(f"sbd: expected label values 0..{len(CLASSES) - 1}, got {strange[0]}")
        colours: list[Colour] = [tuple(colour) for colour in voc_palette(len(CLASSES)).tolist()]
        return {number: Value(name, (str(number),), colours[number]) for number, name in enumerate(CLASSES)}


def open_sbd(tree: Tree, files: list[File]) -> Sbd:
    pairing = pair(tree.pictures, files)
    items = [Item(image.name, image.path, label.path, image.split()) for image, label in pairing.pairs]
    return Sbd("sbd", items, pairing.notes())
