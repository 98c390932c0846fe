"""Cityscapes in its own layout: 19 classes of street scenes, finely labelled, and coarsely labelled as extra data.

    PATH/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
    PATH/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png      (train, val)
    PATH/gtCoarse/SPLIT/CITY/NAME_gtCoarse_labelIds.png  (train_extra)

Labels are the 34 published ids, of which 19 are classes and the others are ignored. Where a split has no labelIds but
labelTrainIds (made by cityscapesScripts), those are read: 0..18, 255 is ignored.
"""

from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import IGNORE
from segmodel.data.base import FileData, MixedData, SegmentationData
from segmodel.data.images import index_values
from segmodel.data.lists import Pair, existing_folder, split_options

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


def cityscapes(rest: str, *, split: str) -> SegmentationData:
    """`rest` is PATH or PATH,coarse: with coarse the 19,998 coarsely labelled images train too. Split: train, val."""
    if split not in ("train", "val"):
        raise DataError(f"cityscapes: split: expected train or val, got {split!r}")
    path, options = split_options("cityscapes", rest, ("coarse",))
    root = existing_folder(path, "cityscapes")
    fine = _part(root, "gtFine", split)
    if split == "train" and "coarse" in options:
        return MixedData([fine, _part(root, "gtCoarse", "train_extra")], name="cityscapes")
    return fine


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
    return FileData(name="cityscapes", classes=CLASSES, palette=PALETTE, root=root, pairs=pairs, values=values)


def _id_values() -> np.ndarray:
    """The table of the published ids: 0..33 are allowed; -1, a licence plate, is not in the pictures."""
    values = index_values(0, ignore=None)
    values[:34] = IGNORE
    values[list(IDS)] = np.arange(len(IDS))
    return values
