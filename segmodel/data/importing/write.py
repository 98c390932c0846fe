"""Reads samples in full, and writes them as pictures that are upright and labels of class numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from segmodel.common.errors import DataError
from segmodel.common.files import writing
from segmodel.common.labels import IGNORE
from segmodel.common.pictures import save_label
from segmodel.data.folder import IMAGE_ENDINGS
from segmodel.data.images import label_of, read_image, turned
from segmodel.data.importing.classes import Classes
from segmodel.data.importing.source import Found, Item, Source
from segmodel.data.loading import loaded

_LOSSY = (".jpg", ".jpeg", ".webp")
QUALITY = 95  # of a picture that had to be turned and was compressed with loss
_MOST_VALUES = 4096  # in one label; with loss or smoothed it has thousands of colours


@dataclass(frozen=True)
class Looked:
    """What a sample was found to hold: `Found` of each of its label values, and the picture's EXIF orientation."""

    found: dict[int, Found]
    orientation: int


def look(source: Source, way: str, item: Item) -> Looked:
    """Reads a sample's picture and label in full.

    way: how the label lies, see `_label`.

    Raises:
        DataError: one of them is broken, or they do not fit.
    """
    pixels, orientation = read_image(item.image)
    values = _label(source, way, item, pixels, orientation)
    numbers, counts = np.unique(values, return_counts=True)
    if len(numbers) > _MOST_VALUES:
        raise DataError(f"{item.label}: got {len(numbers)} label values: saved with loss or smoothed? (--nearest)")
    colours = source.colours(item)
    entries = zip(numbers.tolist(), counts.tolist(), strict=True)
    return Looked({number: Found(count, colours.get(number)) for number, count in entries}, orientation)


def _label(source: Source, way: str, item: Item, pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The label values (H, W) that fit the upright pixels of a picture.

    way: "upright", drawn on the upright picture, as by tools that heed EXIF; "stored", drawn on the pixels as stored;
    "auto": as `label_of` finds out.
    """
    height, width = pixels.shape[:2]
    values = source.label(item, (height, width))
    if way == "stored":
        values = turned(values, orientation)
    elif way == "auto":
        values, _ = label_of(pixels, orientation, values)
    if values.shape != (height, width):
        got = f"{values.shape[1]}x{values.shape[0]}"
        raise DataError(f"{item.image}: expected a label of {width}x{height}, got {got}: {source.where(item)}")
    return values


def written(source: Source, way: str, classes: Classes, root: Path, work: tuple[Item, str, str]) -> np.ndarray:
    """Writes a sample, with its split and name; the pixels of each value of its label map, (256,).

    A picture that is upright, of an ending that the data set takes, is copied byte by byte.
    """
    item, split, name = work
    pixels, orientation = read_image(item.image)
    label = classes.applied(_label(source, way, item, pixels, orientation))
    image, place = root / "images" / split / name, root / "labels" / split / f"{name}.png"
    ending = item.image.suffix.lower()
    with writing("--output", image):
        image.parent.mkdir(parents=True, exist_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        if orientation > 1 or ending not in IMAGE_ENDINGS:
            ending = ending if ending in _LOSSY else ".png"
            picture = Image.fromarray(np.ascontiguousarray(pixels))
            picture.save(f"{image}{ending}", quality=QUALITY, subsampling=0)  # which PNG and TIFF do not heed
        else:
            shutil.copyfile(item.image, f"{image}{ending}")
        save_label(place, label, classes.palette)
    return np.bincount(label.ravel(), minlength=IGNORE + 1)


def each(read: Callable[[Any], Any], keys: Sequence[Any], *, workers: int, title: str) -> Iterator[Any]:
    """read(key) or its `DataError`, for each key, with a progress bar."""
    yield from tqdm(loaded(read, keys, workers=workers), total=len(keys), desc=title, unit="sample", disable=None)
