"""ADE20K scene parsing (the challenge of 2016) in its official layout: 150 classes, 0 is ignored.

PATH/images/training/ADE_train_00000001.jpg     PATH/annotations/training/ADE_train_00000001.png     (20,210)
PATH/images/validation/ADE_val_00000001.jpg     PATH/annotations/validation/ADE_val_00000001.png     (2,000)
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import voc_palette
from segmodel.data.base import FileData
from segmodel.data.images import index_values
from segmodel.data.lists import Pair, existing_folder

# The first name of each class in objectInfo150.txt.
CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman",
    "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything",
    "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
    "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
FOLDERS = {"train": "training", "val": "validation"}


def ade20k(root: Path, *, split: str) -> FileData:
    """`root` is ADEChallengeData2016 or holds it. Label values 1..150 become classes 0..149, 0 becomes 255."""
    root = root / "ADEChallengeData2016" if (root / "ADEChallengeData2016").is_dir() else root
    images = existing_folder(root / "images" / FOLDERS[split], "ade20k: images")
    labels = existing_folder(root / "annotations" / FOLDERS[split], "ade20k: labels")
    files = sorted(images.glob("*.jpg"))
    if not files:
        raise DataError(f"{images}: expected images *.jpg, got none")
    pairs = [Pair(file, labels / f"{file.stem}.png", file.stem, where=str(file)) for file in files]
    values = index_values(0, ignore=0)
    values[1 : len(CLASSES) + 1] = np.arange(len(CLASSES))
    palette = voc_palette(len(CLASSES) + 1)[1:]
    return FileData("ade20k", CLASSES, palette, root, pairs, values, mean_score="ADE20K score")


def ade20k_ids(classes: Sequence[str]) -> np.ndarray:
    """The values (C,) uint8 of classes in label files: class number + 1, whatever the names."""
    return np.arange(1, len(classes) + 1, dtype=np.uint8)
