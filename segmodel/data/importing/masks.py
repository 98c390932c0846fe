"""Labels that are pictures: of numbers, with gaps or not, 0 and 255, or colours; and VOC's folders of them.

Labels whose every pixel is grey hold numbers, others hold colours. Of numbers 255 is ignored, unless 0 and 255 are all
there is: then it is a class. VOC's border colour, (224, 224, 192), is ignored too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import IGNORE
from segmodel.data.base import evenly_spaced
from segmodel.data.images import label_palette, read_image, read_label_pixels
from segmodel.data.importing.names import class_colours, class_names
from segmodel.data.importing.source import Colour, Found, Item, Source, Value, hexadecimal, packed, unpacked
from segmodel.data.importing.tree import Pairing, Tree, pair_pictures
from segmodel.data.voc import CLASSES as VOC_CLASSES

BORDER = (224, 224, 192)
_LOOKED_AT = 20  # labels that tell numbers from colours


@dataclass
class Masks(Source):
    """Labels as pictures.

    coloured: whether values are colours, as numbers of 24 bits. names, named_in: of numbers, and the file of names.
    known: colours (K, 3) uint8 of which each pixel's nearest is taken; None: as they stand.
    """

    coloured: bool = False
    names: dict[int, str] = field(default_factory=dict)
    colour_names: dict[Colour, str] = field(default_factory=dict)
    named_in: Path | None = None
    known: np.ndarray | None = None

    def label(self, item: Item, size: tuple[int, int]) -> np.ndarray:
        if self.known is not None:
            return self._nearest(read_image(item.label)[0], self.known)
        raw = read_label_pixels(item.label)
        if self.coloured:
            return packed(raw if raw.ndim == 3 else read_image(item.label)[0])
        if raw.ndim == 3:
            if not is_grey(raw):
                raise DataError(f"{item.label}: expected numbers, got colours (--format colours takes all as colours)")
            raw = raw[..., 0]
        return raw.astype(np.int32)

    def _nearest(self, pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
        colours, place = np.unique(packed(pixels), return_inverse=True)
        parts = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1)
        best = np.square(parts[:, None] - known.astype(int)).sum(2).argmin(1)
        values = packed(known) if self.coloured else known[:, 0].astype(np.int32)
        return values[best][place].reshape(pixels.shape[:2])

    def colours(self, item: Item) -> dict[int, Colour]:
        return {} if self.coloured or self.known is not None else label_palette(item.label)

    def values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        return self._colour_values(found) if self.coloured else self._number_values(found)

    def _colour_values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        values = {}
        for colour in dict.fromkeys((*self.colour_names, *map(unpacked, sorted(found)))):
            number, text = int(packed(np.array(colour))), hexadecimal(colour)
            name = self.colour_names.get(colour, "")
            ignored = not name and colour == BORDER
            unknown = ""
            if self.colour_names and not name and not ignored:
                unknown = f"{self.named_in}: no class is {text}, but {found[number].pixels} pixels (lossy? --nearest)"
            values[number] = Value(
                name or ("ignore" if ignored else _colour_name(colour)), (text,), colour, ignored, unknown
            )
        return values

    def _number_values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        names = self.names
        if set(found) == {0, IGNORE} and IGNORE not in names and len(names) in (0, 2):
            names = dict(zip((0, IGNORE), names.values() or ("background", "foreground"), strict=True))
        elif set(found) == {0, 1} and not names:
            names = {0: "background", 1: "foreground"}
        values = {}
        for number in sorted({*names, *found}):
            ignored = number == IGNORE and IGNORE not in names
            unknown = ""
            if names and number not in names and not ignored:
                unknown = f"{self.named_in}: names {min(names)} to {max(names)}, but labels hold {number}"
            name = names.get(number, "ignore" if ignored else f"class_{number}")
            colour = found[number].colour if number in found else None
            values[number] = Value(name, (str(number),), colour, ignored, unknown)
        return values


def _colour_name(colour: Colour) -> str:
    return "background" if colour == (0, 0, 0) else f"colour_{hexadecimal(colour)[1:]}"


def is_grey(pixels: np.ndarray) -> bool:
    """Whether the channels (H, W, 3) are all the same."""
    return bool((pixels[..., :1] == pixels).all())


def open_masks(tree: Tree, pairing: Pairing, kind: str, *, nearest: bool, known: Sequence[Colour]) -> Masks:
    """The pairs that `pair_masks` found.

    kind: "numbers" or "colours"; another: which of them is found out.
    nearest: takes each pixel as the nearest colour of labelmap.txt or `known`, or as 0 or 255.
    """
    file, colours = class_colours(tree)
    labels = [label.path for _, label in pairing.pairs]
    if nearest:
        coloured = any(len(set(colour)) > 1 for colour in (*colours, *known))
    else:
        coloured = kind == "colours" or (kind != "numbers" and _has_colours(labels, file))
    items = [Item(image.name, image.path, label.path, image.split()) for image, label in pairing.pairs]
    kind = "voc" if is_voc(tree) else "colours" if coloured else "numbers"
    masks = Masks(kind, items, pairing.notes(), coloured=coloured)
    if coloured:
        masks.named_in, masks.colour_names = file, colours
    else:
        masks.named_in, masks.names = class_names(tree)
        if masks.format == "voc" and not masks.names and all(_is_voc_name(item.image) for item in items):
            masks.names = dict(enumerate(VOC_CLASSES))
            masks.named_in = Path("VOC 2012")
    if nearest:
        masks.known = np.array([*colours, *known] or [(0, 0, 0), (255, 255, 255)], np.uint8)
    return masks


def pair_masks(tree: Tree) -> Pairing:
    """Pairs of pictures and labels among the pictures of a tree; of VOC's two folders of labels the augmented one."""
    files = tree.pictures
    if any("segmentationclassaug" in file.folders for file in files):
        files = [file for file in files if "segmentationclass" not in file.folders]
    return pair_pictures(files)


def is_voc(tree: Tree) -> bool:
    return any({"segmentationclass", "segmentationclassaug"} & set(file.folders) for file in tree.pictures)


def _is_voc_name(image: Path) -> bool:
    return bool(re.fullmatch(r"20\d\d_\d{6}", image.stem))


def _has_colours(labels: Sequence[Path], names: Path | None) -> bool:
    for index in evenly_spaced(len(labels), _LOOKED_AT):
        try:
            raw = read_label_pixels(labels[index])
            if raw.ndim == 3 and not is_grey(raw):
                return True
            if names and not is_grey(read_image(labels[index])[0]):
                return True
        except DataError:
            continue  # it is reported when all are read
    return False
