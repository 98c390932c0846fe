"""COCO's JSON, as `segmodel.data.coco` reads it: of instances that overlap the one of fewer pixels lies on top, a crowd
is ignored where no single instance lies, the rest is background."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PureWindowsPath

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import IGNORE
from segmodel.data.coco import CocoData, instances, require_pycocotools
from segmodel.data.importing.source import Colour, Found, Item, Source, Value
from segmodel.data.importing.tree import File, Tree, listed

KEYS = ("images", "annotations", "categories")


@dataclass
class Coco(Source):
    """Labels in one or several COCO files of the same categories; values are those of `CocoData`, 255 is ignored."""

    files: list[CocoData] = field(default_factory=list)

    def label(self, item: Item, size: tuple[int, int]) -> np.ndarray:
        file, index = item.label
        _, height, width, _ = self.files[file].images[index]
        if (height, width) not in (size, size[::-1]):
            where = f"{item.image}: expected {width}x{height} ({self.files[file].file})"
            raise DataError(f"{where}, got {size[1]}x{size[0]}")
        return self.files[file].label(index).astype(np.int32)

    def where(self, item: Item) -> str:
        return str(self.files[item.label[0]].file)

    def values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        data = self.files[0]
        colours: list[Colour] = [tuple(colour) for colour in data.palette.tolist()]
        keys = defaultdict(list)
        for number, value in data.categories.items():
            keys[value].append(str(number))
        known = {value: Value(name, tuple(keys[value]), colours[value]) for value, name in enumerate(data.classes)}
        return known | {IGNORE: Value("ignore", ignored=True)}


def open_coco(tree: Tree, files: list[File], *, skip_bad: bool) -> Coco:
    """The pictures that COCO's files name, wherever they lie. skip_bad: without annotations that have no mask."""
    require_pycocotools()
    source = Coco("coco", files=[instances(file.path.parent, file.path, None, skip_bad=skip_bad) for file in files])
    by_name = defaultdict(list)
    for picture in tree.pictures:
        by_name[picture.path.name.casefold()].append(picture)
    missing: list[str] = []
    for number, data in enumerate(source.files):
        source.notes += data.notes
        if data.classes != source.files[0].classes:
            raise DataError(f"{data.file}: expected the categories of {source.files[0].file}, got others")
        for index, (name, *_) in enumerate(data.images):
            image = _nearest(by_name[PureWindowsPath(name).name.casefold()], name)  # takes / and \
            if image is None:
                missing.append(name)
                continue
            split = files[number].split() or image.split()
            source.items.append(Item(image.name, image.path, (number, index), split))
    used = {item.image for item in source.items}
    unlabelled = [picture.path for picture in tree.pictures if picture.path not in used]
    for what, names in (("pictures without a label", unlabelled), ("labels without a picture", missing)):
        source.notes += [listed(what, names)] if names else []
    return source


def _nearest(candidates: list[File], name: str) -> File | None:
    """The one of several pictures of a name whose path agrees furthest with that in the file; None if two do."""
    wanted = [part.casefold() for part in PureWindowsPath(name).parts][::-1]

    def agreement(file: File) -> int:
        parts = [part.casefold() for part in file.path.parts][::-1]
        return next((i for i, (a, b) in enumerate(zip(parts, wanted, strict=False)) if a != b), len(wanted))

    ranked = sorted(candidates, key=agreement, reverse=True)
    if not ranked or (len(ranked) > 1 and agreement(ranked[0]) == agreement(ranked[1])):
        return None
    return ranked[0]
