"""Cityscapes in its official layout: 19 classes of street scenes, with fine labels, and with coarse ones as extra data.

    PATH/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
    PATH/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png      (train, val)
    PATH/gtCoarse/SPLIT/CITY/NAME_gtCoarse_labelIds.png  (train_extra)

Labels are the 34 published ids: 19 are classes, the others are ignored. A split without labelIds is read from
labelTrainIds (made by cityscapesScripts) if it has them: 0..18, 255 is ignored.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import IGNORE
from segmodel.data.base import FileData, MixedData, SegmentationData
from segmodel.data.images import index_values
from segmodel.data.lists import Pair, existing_folder

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
PALETTE = np.array(
    [
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
        (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ],
    np.uint8,
)  # fmt: skip
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of the classes, among 0..33


def cityscapes(root: Path, *, split: str, coarse: bool = False) -> SegmentationData:
    """The finely labelled images; with `coarse` the 19,998 coarsely labelled ones of train_extra train too."""
    fine = _part(root, "gtFine", split)
    if split == "train" and coarse:
        return MixedData([fine, _part(root, "gtCoarse", "train_extra")], name="cityscapes")
    return fine


def cityscapes_ids(classes: Sequence[str]) -> np.ndarray:
    """The published ids (C,) uint8 of classes by their names, in any order.

    Raises:
        DataError: Cityscapes has no class of this name.
    """
    known = dict(zip(CLASSES, IDS, strict=True))
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise DataError(f"cityscapes has no class {unknown[0]!r}; it has {', '.join(known)}")
    return np.array([known[name] for name in classes], np.uint8)


def _part(root: Path, truth: str, split: str) -> FileData:
    folder = existing_folder(root / "leftImg8bit" / split, "cityscapes: images")
    labels = existing_folder(root / truth / split, "cityscapes: labels")
    images = sorted(folder.glob("*/*_leftImg8bit.png"))
    if not images:
        raise DataError(f"{folder}: expected images CITY/NAME_leftImg8bit.png, got none")
    has_ids = next(labels.glob("*/*_labelIds.png"), None) is not None
    kind = "labelIds" if has_ids or next(labels.glob("*/*_labelTrainIds.png"), None) is None else "labelTrainIds"
    pairs = []
    for image in images:
        name = image.name.removesuffix("_leftImg8bit.png")
        label = labels / image.parent.name / f"{name}_{truth}_{kind}.png"
        pairs.append(Pair(image, label, name, where=str(image)))
    values = _id_values() if kind == "labelIds" else index_values(len(CLASSES))
    return FileData("cityscapes", CLASSES, PALETTE, root, pairs, values)


def _id_values() -> np.ndarray:
    """Published id -> class, (256,) uint8; 0..33 are allowed (-1, a licence plate, does not occur in pictures)."""
    values = index_values(0, ignore=None)
    values[:34] = IGNORE
    values[list(IDS)] = np.arange(len(IDS))
    return values
