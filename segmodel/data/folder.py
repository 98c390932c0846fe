"""Your own pictures: images/ and labels/ with a small classes.toml.

    ROOT/classes.toml
    ROOT/images/train/a.jpg   ROOT/labels/train/a.png     (any depth below train; same names except for the ending)
    ROOT/images/val/b.jpg     ROOT/labels/val/b.png

or, if ROOT/train.txt, val.txt or test.txt exists, the pairs listed there: IMAGE LABEL, relative to ROOT.

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
Rules = tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray | None]


def folder(root: Path, *, split: str) -> FileData:
    """The data set described above."""
    names, palette, values, colours = read_classes(root / "classes.toml")
    has_list = any((root / f"{name}.txt").exists() for name in SPLITS)
    pairs = read_pairs(root / f"{split}.txt", root) if has_list else _found_pairs(root, split)
    return FileData(root.name, names, palette, root, pairs, values, colours)


def read_classes(file: Path) -> Rules:
    """`classes`, `palette`, `values` and `colours` of `FileData`, as a classes.toml says."""
    try:
        table = tomllib.loads(read_text(file, most="SEGMODEL_MAX_CONFIG_BYTES"))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file (class names and colours)") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read: {one_line(error)}") from error
    try:
        return _classes(table)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error


def _classes(table: dict[str, Any]) -> Rules:
    _only_keys("", table, {"labels", "ignore", "classes"})
    kind, entries, ignore = table.get("labels", "index"), table.get("classes"), table.get("ignore")
    if kind not in ("index", "colour"):
        raise ValueError(f"labels: expected 'index' or 'colour', got {kind!r}")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_CLASSES:
        raise ValueError(f"classes: expected 1 to {MAX_CLASSES} tables [[classes]], got {entries!r:.60}")
    names = tuple(_name(f"classes[{number}]", entry) for number, entry in enumerate(entries))
    if len(set(names)) < len(names):
        raise ValueError("classes: expected names that differ, got one twice")
    colours = [_colour(f"classes[{number}].colour", entry.get("colour")) for number, entry in enumerate(entries)]
    palette = np.array(colours, np.uint8)
    if kind == "index":
        if ignore is not None and not (_is_byte(ignore) and ignore >= len(names)):
            raise ValueError(f"ignore: expected a number from {len(names)} (no class has it) to 255, got {ignore!r}")
        return names, palette, index_values(len(names), ignore=ignore), None
    values = list(range(len(names)))
    if ignore is not None:
        colours.append(_colour("ignore", ignore))
        values.append(IGNORE)
    if len(set(map(tuple, colours))) < len(colours):
        raise ValueError("colours: expected all different (the ignored one too), got a colour twice")
    return names, palette, np.array(values, np.uint8), np.array(colours, np.uint8)


def _only_keys(where: str, table: dict[str, Any], known: set[str]) -> None:
    for key in sorted(table.keys() - known):
        raise ValueError(f"{where}{key}: unknown key, expected {', '.join(sorted(known))}")


def _name(where: str, entry: Any) -> str:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a table with name and colour, got {entry!r:.60}")
    _only_keys(f"{where}.", entry, {"name", "colour"})
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}.name: expected a text, got {name!r}")
    return name


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _colour(where: str, value: Any) -> list[int]:
    if not (isinstance(value, list) and len(value) == 3 and all(_is_byte(part) for part in value)):
        raise ValueError(f"{where}: expected [red, green, blue] of 0..255, got {value!r:.60}")
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
        if name in pairs:
            wrong.append(f"{image}: expected one image of this name, got {pairs[name].image} too")
        pairs[name] = Pair(image, labels / f"{name}.png", name, where=str(image))
    if wrong:
        raise DataError(*wrong)
    return list(pairs.values())
