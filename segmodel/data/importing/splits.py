"""Which samples train, and which a model is judged by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError
from segmodel.data.importing.names import text_of
from segmodel.data.importing.source import Item
from segmodel.data.importing.tree import SPLITS, Tree

_LISTS = {**SPLITS, "train_aug": "train"}


def tree_splits(tree: Tree, items: Sequence[Item]) -> list[str]:
    """The split of each sample as the source says: by its lists, else by its folders; "" where it says nothing.

    Lists are files such as train.txt and val.txt that name pictures; VOC's are those of ImageSets/Segmentation. A
    sample in several is of val.
    """
    by_name = {item.image.stem: place for place, item in enumerate(items)}
    listed = [""] * len(items)
    for file in tree.ending(".txt"):
        split = _LISTS.get(file.path.stem.lower())
        if not split or ("imagesets" in file.folders and "segmentation" not in file.folders):
            continue
        names = [Path(line.split()[0]).stem for line in text_of(file.path).splitlines() if line.strip()]
        for place in (by_name[name] for name in names if name in by_name):
            listed[place] = listed[place] if listed[place] == "val" else split
    said = listed if any(listed) and len(by_name) == len(items) else [item.split for item in items]
    return said if {"train", "val"} <= set(said) else [""] * len(items)


def listed_splits(items: Sequence[Item], train: str, val: str) -> list[str]:
    """The split of each sample by lists of names that the user gives; without one of them the others are all of it.

    A line is the name of a sample or of its picture, with or without folders and ending.

    Raises:
        DataError: a list that cannot be read, is empty, or names no sample; a sample in both.
    """
    places: dict[str, set[int]] = defaultdict(set)
    for place, item in enumerate(items):
        below = item.image.as_posix()
        for name in {item.name, item.image.stem, item.image.name, below}:
            places[name].add(place)
    splits = [""] * len(items)
    for split, file in (("train", train), ("val", val)):
        lines = text_of(Path(file)).splitlines() if file else []
        if file and not any(map(str.strip, lines)):
            raise DataError(f"{file}: expected at least one name, got an empty list")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            found = next((places[name] for name in _forms(line) if name in places), set())
            if len(found) != 1:
                what = f"{len(found) or 'none'}: {line!r:.100}"
                raise DataError(f"{file}, line {number}: expected the name of one sample, got that of {what}")
            place = next(iter(found))
            if splits[place] not in ("", split):
                raise DataError(f"{file}, line {number}: {line.strip()} is in {train} too")
            splits[place] = split
    other = "" if train and val else "val" if train else "train"
    return [split or other for split in splits]


def _forms(line: str) -> list[str]:
    """What a line may name: all of it or, where it has two columns, the first; each with fewer and fewer folders."""
    texts = [line.strip(), line.split()[0]]
    names = [text.replace("\\", "/").removeprefix("./") for text in texts]
    return [
        form for name in names for form in (name, name.rpartition(".")[0], Path(name).name, Path(name).stem) if form
    ]


def held_out(shown: Sequence[frozenset[int]], *, share: float, seed: int) -> list[str]:
    """ "train" or "val" of each sample: a share of them by chance, at least one, is held out.

    A sample that is the last to show a class stays in train, as long as others can be held out.

    Args:
        shown: the classes of each sample.
    """
    wanted = min(max(1, round(share * len(shown))), len(shown) - 1) if share else 0
    order = np.random.default_rng(seed).permutation(len(shown)).tolist()
    left = Counter(value for classes in shown for value in classes)
    splits = ["train"] * len(shown)
    for place in order:
        if splits.count("val") < wanted and all(left[value] > 1 for value in shown[place]):
            splits[place] = "val"
            left.subtract(shown[place])
    if wanted and "val" not in splits:
        splits[order[0]] = "val"
    return splits
