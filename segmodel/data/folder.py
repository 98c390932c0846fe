"""Your own pictures: images/ and labels/ with a small classes.toml.

    ROOT/classes.toml
    ROOT/images/train/a.jpg   ROOT/labels/train/a.png     (any depth below train; same names except for the ending,
    ROOT/images/val/b.jpg     ROOT/labels/val/b_mask.png   or label names that end in _mask; .png, .bmp or .tif)

Without images/val a fifth of the images is held out for validation (val_share = 0.2, drawn by val_seed = 0); the
pictures may also lie in images/ and labels/ themselves. If ROOT/train.txt, val.txt or test.txt exists, the pairs listed
there are taken instead: IMAGE LABEL, relative to ROOT. Where classes.toml is missing, `check` prints one that suits the
labels. The shortest one, for labels whose values are 0 and 1:

    classes = ["background", "crack"]

and all that one may hold:

    labels = "index"          # or "colour": labels are RGB or grey pictures in the classes' colours
    ignore = [254, 255]       # label values, or one; with "colour" a colour, [0, 0, 0], or several
    map = { 10 = 1, 11 = "crack", 255 = "ignore" }   # label value = class; classes not named here keep their numbers
    val_share = 0.2
    val_seed = 0
    [[classes]]               # the first is class 0
    name = "sky"
    colour = [128, 128, 128]  # else one is chosen
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

from segmodel.common.errors import DataError
from segmodel.data.base import FileData
from segmodel.data.class_file import ClassFile, read_classes
from segmodel.data.images import pictures_below
from segmodel.data.lists import Pair, existing_folder, read_pairs

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
SPLITS = ("train", "val", "test")
MASK = "_mask"


def folder(root: Path, *, split: str) -> FileData:
    """The data set described above."""
    if any((root / f"{name}.txt").exists() for name in SPLITS):
        pairs, notes, held_out = read_pairs(root / f"{split}.txt", root), list[str](), False
    else:
        there = [name for name in SPLITS if (root / "images" / name).is_dir()]
        held_out = split != "test" and "val" not in there and ("train" in there or not there)
        pairs, notes = _found_pairs(root, ("train" if there else "") if held_out else split)
    file = root / "classes.toml"
    below = root / "labels"
    classes = read_classes(
        file, lambda: pictures_below(below, LABEL_ENDINGS) if below.is_dir() else [pair.label for pair in pairs]
    )
    if held_out:
        pairs, note = _share(root, split, pairs, classes)
        notes.append(note)
    hint = f"; map and ignore in {file} say what other values stand for" if classes.colours is None else ""
    rules = classes.names, classes.palette, root, pairs, classes.values, classes.colours
    return FileData(root.name, *rules, hint, notes)


def _found_pairs(root: Path, part: str) -> tuple[list[Pair], list[str]]:
    """The images of a folder with their labels, and what is to be said of them."""
    images = existing_folder(root / "images" / part, "folder: images")
    labels = existing_folder(root / "labels" / part, "folder: labels")
    files = pictures_below(images, IMAGE_ENDINGS)
    if not files:
        raise DataError(f"{images}: expected images ({', '.join(IMAGE_ENDINGS)}), got none")
    found = _labels(labels)
    pairs: dict[str, Pair] = {}
    wrong: list[str] = []
    for image in files:
        name = image.relative_to(images).with_suffix("").as_posix()
        if name in pairs:
            wrong.append(f"{image}: expected one image of this name, got {pairs[name].image} too")
        first, *others = found.pop(name, []) or found.pop(name + MASK, []) or [labels / f"{name}.png"]
        if others:
            wrong.append(f"{image}: expected one label of its name, got {first} and {others[0]}")
        pairs[name] = Pair(image, first, name, where=str(image))
    if wrong:
        raise DataError(*wrong)
    left = sorted(file for files in found.values() for file in files)
    notes = [f"{labels}: no image for {len(left)} labels, the first is {left[0].relative_to(labels)}"] if left else []
    return list(pairs.values()), notes


def _labels(folder: Path) -> dict[str, list[Path]]:
    """The label files of each name; one that only pictures have, such as .jpg, where there is no other: it is named."""
    found = defaultdict[str, list[Path]](list)
    for file in pictures_below(folder, IMAGE_ENDINGS):
        found[file.relative_to(folder).with_suffix("").as_posix()].append(file)
    return {name: [f for f in files if f.suffix.lower() in LABEL_ENDINGS] or files for name, files in found.items()}


def _share(root: Path, split: str, pairs: list[Pair], classes: ClassFile) -> tuple[list[Pair], str]:
    """The pairs of train or val, and how they were chosen: by names, so that further images change little."""
    if len(pairs) < 2:
        raise DataError(f"{root / 'images'}: expected two images or more, of which one validates, got {len(pairs)}")
    marks = {pair.name: hashlib.sha256(f"{classes.val_seed}/{pair.name}".encode()).digest() for pair in pairs}
    count = min(len(pairs) - 1, max(1, round(classes.val_share * len(pairs))))
    held_out = set(sorted(marks, key=marks.__getitem__)[:count])
    note = (f"{root}: no images/val: {count} of {len(pairs)} images are held out for validation "
            f"(val_share = {classes.val_share}, val_seed = {classes.val_seed} in classes.toml)")  # fmt: skip
    return [pair for pair in pairs if (pair.name in held_out) == (split == "val")], note
