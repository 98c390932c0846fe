"""CamVid as the SegNet tutorial ships it: lists of IMAGE LABEL pairs, 11 classes, value 11 is unlabelled."""

from pathlib import Path

import numpy as np

from segmodel.common.labels import IGNORE
from segmodel.data.base import FileData
from segmodel.data.images import index_values
from segmodel.data.lists import read_pairs

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
PALETTE = np.array(
    [
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ],
    np.uint8,
)  # fmt: skip
UNLABELLED = 11


def camvid(root: Path, *, split: str) -> FileData:
    """The pairs that SPLIT.txt lists, IMAGE LABEL, relative to `root` or as paths of another machine.

    Label values 0..10 are classes; 11 (unlabelled) and 255 become 255.
    """
    values = index_values(len(CLASSES))
    values[UNLABELLED] = IGNORE
    return FileData("camvid", CLASSES, PALETTE, root, read_pairs(root / f"{split}.txt", root), values)
