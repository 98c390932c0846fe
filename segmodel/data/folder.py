"""Your own pictures: images/ and labels/ with a small classes.toml.

    ROOT/classes.toml
    ROOT/images/train/a.jpg   ROOT/labels/train/a.png     (any depth below train; names equal but for the ending)
    ROOT/images/val/b.jpg     ROOT/labels/val/b.png

or, if ROOT/train.txt is there, the pairs that ROOT/train.txt, ROOT/val.txt list: IMAGE LABEL, relative to ROOT.

    labels = "index"          # or "colour": labels are RGB or grey pictures in the classes' colours
    ignore = 255              # with "colour" a colour, [0, 0, 0]; leave it out if nothing is ignored
    [[classes]]               # the first is class 0
    name = "sky"
    colour = [128, 128, 128]
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import DataError, one_line, read_text
from segmodel.common.labels import IGNORE
from segmodel.data.base import MAX_CLASSES, FileData
from segmodel.data.images import index_values, pictures_below
from segmodel.data.lists import Pair, existing_folder, read_pairs

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLITS = ("train", "val", "test")


def folder(path: str, *, split: str) -> FileData:
    """The data set described above; `split` is train, val or test."""
    if split not in SPLITS:
        raise DataError(f"folder: split: expected one of {', '.join(SPLITS)}, got {split!r}")
    root = existing_folder(path, "folder")
    file = root / "classes.toml"
    names, palette, kind, ignore = read_classes(file)
    has_list = any((root / f"{name}.txt").exists() for name in SPLITS)
    pairs = read_pairs(root / f"{split}.txt", root) if has_list else _found_pairs(root, split)
    if kind == "index":
        values, colours = index_values(len(names), ignore=ignore), None
    else:
        values, colours = np.arange(len(names), dtype=np.uint8), palette
        if ignore is not None:
            values = np.append(values, np.uint8(IGNORE))
            colours = np.concatenate([palette, np.array([ignore], np.uint8)])
        if len(np.unique(colours, axis=0)) < len(colours):
            raise DataError(f"{file}: colours: expected all different (the ignored one too), got a colour twice")
    return FileData(
        name=root.name, classes=names, palette=palette, root=root, pairs=pairs, values=values, colours=colours
    )


def read_classes(file: Path) -> tuple[tuple[str, ...], np.ndarray, str, Any]:
    """Names, palette (C, 3) uint8, kind of labels and ignore value (a number, a colour or None) of a classes.toml."""
    try:
        table = tomllib.loads(read_text(file, most="SEGMODEL_MAX_CONFIG_BYTES"))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file (class names and colours)") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read: {one_line(error)}") from error
    _only_keys(file, "", table, {"labels", "ignore", "classes"})
    kind = table.get("labels", "index")
    if kind not in ("index", "colour"):
        raise DataError(f"{file}: labels: expected 'index' or 'colour', got {kind!r}")
    entries = table.get("classes")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_CLASSES:
        raise DataError(f"{file}: classes: expected 1 to {MAX_CLASSES} tables [[classes]], got {entries!r:.60}")
    names = tuple(_name(file, number, entry) for number, entry in enumerate(entries))
    if len(set(names)) < len(names):
        raise DataError(f"{file}: classes: expected names that differ, got one twice")
    colours = [_colour(file, f"classes[{number}].colour", entry.get("colour")) for number, entry in enumerate(entries)]
    return names, np.array(colours, np.uint8), kind, _ignore(file, kind, table.get("ignore"), len(names))


def _only_keys(file: Path, where: str, table: dict[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise DataError(f"{file}: {where}{key}: unknown key, expected {', '.join(sorted(known))}")


def _name(file: Path, number: int, entry: Any) -> str:
    if not isinstance(entry, dict):
        raise DataError(f"{file}: classes[{number}]: expected a table with name and colour, got {entry!r:.60}")
    _only_keys(file, f"classes[{number}].", entry, {"name", "colour"})
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{file}: classes[{number}].name: expected a text, got {name!r}")
    return name


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _colour(file: Path, where: str, value: Any) -> list[int]:
    if not (isinstance(value, list) and len(value) == 3 and all(_is_byte(part) for part in value)):
        raise DataError(f"{file}: {where}: expected [red, green, blue] of 0..255, got {value!r:.60}")
    return value


def _ignore(file: Path, kind: str, value: Any, count: int) -> Any:
    if value is None:
        return None
    if kind == "colour":
        return _colour(file, "ignore", value)
    if not _is_byte(value) or value < count:
        raise DataError(f"{file}: ignore: expected a number from {count} (no class has it) to 255, got {value!r}")
    return value


def _found_pairs(root: Path, split: str) -> list[Pair]:
    images = existing_folder(root / "images" / split, "folder: images")
    labels = existing_folder(root / "labels" / split, "folder: labels")
    files = pictures_below(images, IMAGE_ENDINGS)
    if not files:
        raise DataError(f"{images}: expected images ({', '.join(IMAGE_ENDINGS)}), got none")
    pairs: dict[str, Pair] = {}
    wrong: list[str] = []
    for image in files:
        name = image.relative_to(images).with_suffix("").as_posix()
        label = labels / f"{name}.png"
        if name in pairs:
            wrong.append(f"{image}: expected one image of this name, got {pairs[name].image} too")
        pairs[name] = Pair(image, label, name, where=str(image))
    if wrong:
        raise DataError(*wrong)
    return list(pairs.values())
