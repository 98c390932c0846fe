"""classes.toml: the classes of an own data set, and which values or colours of its labels stand for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import DataError, one_line, printable
from segmodel.common.labels import IGNORE, is_background, voc_palette
from segmodel.common.reading import parse_toml, read_text
from segmodel.data.base import MAX_CLASSES, evenly_spaced
from segmodel.data.images import INVALID, index_values, open_picture

KEYS = {"labels", "ignore", "map", "classes", "val_share", "val_seed"}
LOOKED_AT = 200  # label files, for a suggestion
MOST_FOUND = 64  # values or colours; more are those of photographs


@dataclass(frozen=True)
class ClassFile:
    """What a classes.toml says.

    names, palette, values, colours: `classes`, `palette`, `values` and `colours` of `FileData`.
    val_share, val_seed: the share of the images that is held out where there are none for validation, and its seed.
    """

    names: tuple[str, ...]
    palette: np.ndarray
    values: np.ndarray
    colours: np.ndarray | None
    val_share: float = 0.2
    val_seed: int = 0


def read_classes(file: Path, find_labels: Callable[[], Sequence[Path]] = tuple) -> ClassFile:
    """What the file says; where it is missing, the error's advice is one that suits the label files that are found."""
    try:
        table = parse_toml(read_text(file, most="SEGMODEL_MAX_CONFIG_BYTES", encoding="utf-8-sig"))
    except FileNotFoundError as error:
        missing = DataError(f"{file}: no such file (names of the classes, and the label values that stand for them)")
        missing.advice = _advice(file, find_labels())
        raise missing from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {one_line(error)}") from error
    try:
        return _class_file(table)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error


def _class_file(table: dict[str, Any]) -> ClassFile:
    _only_keys("", table, KEYS)
    kind, entries = table.get("labels", "index"), table.get("classes")
    if kind not in ("index", "colour"):
        raise ValueError(f"labels: expected 'index' or 'colour', got {kind!r}")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_CLASSES:
        raise ValueError(f"classes: expected 1 to {MAX_CLASSES} names or tables [[classes]], got {entries!r:.60}")
    tables = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    names = tuple(_name(f"classes[{number}]", entry) for number, entry in enumerate(tables))
    if len(set(names)) < len(names):
        raise ValueError("classes: expected names that differ, got one twice")
    share, seed = table.get("val_share", ClassFile.val_share), table.get("val_seed", ClassFile.val_seed)
    if type(share) is not float or not 0 < share < 1:
        raise ValueError(f"val_share: expected more than 0 and less than 1, got {share!r}")
    if type(seed) is not int:
        raise ValueError(f"val_seed: expected a whole number, got {seed!r}")
    drawn = [
        _colour(f"classes[{number}].colour", entry.get("colour")) if "colour" in entry or kind == "colour" else None
        for number, entry in enumerate(tables)
    ]
    if kind == "index":
        return ClassFile(names, _palette(names, drawn), _values(names, table), None, share, seed)
    values, colours = _colours(drawn, table)
    return ClassFile(names, _palette(names, drawn), values, colours, share, seed)


def _only_keys(where: str, table: dict[str, Any], known: set[str]) -> None:
    for key in sorted(table.keys() - known):
        raise ValueError(f"{where}{key}: unknown key, expected {', '.join(sorted(known))}")


def _name(where: str, entry: Any) -> str:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a name, or a table with name and colour, got {entry!r:.60}")
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


def _palette(names: Sequence[str], colours: Sequence[list[int] | None]) -> np.ndarray:
    """Colours (C, 3) uint8: those given, else black for the background, and VOC's that are free for the others."""
    free = (colour for colour in voc_palette(256).tolist()[1:] if colour not in colours)
    background = [is_background(name) for name in names]
    chosen = [
        colour or ([0, 0, 0] if behind else next(free)) for colour, behind in zip(colours, background, strict=True)
    ]
    return np.array(chosen, np.uint8)


def _values(names: Sequence[str], table: dict[str, Any]) -> np.ndarray:
    """Label value -> class, (256,) uint8, from `map` and `ignore`; a class that `map` does not name has its number."""
    mapped = table.get("map", {})
    if not isinstance(mapped, dict):
        raise ValueError(f'map: expected a table such as {{ 10 = 1, 255 = "ignore" }}, got {mapped!r:.60}')
    targets = {_value(key): _target(key, target, names) for key, target in mapped.items()}
    values = index_values(len(names), ignore=None)
    values[[number for number in targets.values() if number != IGNORE]] = INVALID  # its own number is none of its
    for value, target in targets.items():
        values[value] = target
    ignored = table.get("ignore", [])
    for value in ignored if isinstance(ignored, list) else [ignored]:
        if not _is_byte(value) or values[value] < len(names):
            raise ValueError(f"ignore: expected a number of 0..255 that no class has, or a list of such, got {value!r}")
        values[value] = IGNORE
    lost = [name for number, name in enumerate(names) if number not in values]
    if lost:
        raise ValueError(f"map: expected a label value for each class, got none for {lost[0]}")
    return values


def _value(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and int(key) <= 255):
        raise ValueError(f"map: expected label values of 0..255 on the left, got {key!r:.60}")
    return int(key)


def _target(key: str, target: Any, names: Sequence[str]) -> int:
    if target == "ignore":
        return IGNORE
    if isinstance(target, str) and target in names:
        return names.index(target)
    if type(target) is not int or not 0 <= target < len(names):
        raise ValueError(f"map.{key}: expected a class (0..{len(names) - 1}, or its name) or 'ignore', got {target!r}")
    return target


def _colours(drawn: Sequence[Any], table: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """`values` and `colours` of `FileData` for labels in the classes' colours."""
    if "map" in table:
        raise ValueError("map: expected only where labels are numbers, got it with labels = 'colour'")
    ignored = table.get("ignore", [])
    if not isinstance(ignored, list) or (ignored and not isinstance(ignored[0], list)):
        ignored = [ignored]  # one colour
    colours = [*drawn, *(_colour("ignore", colour) for colour in ignored)]
    if len(set(map(tuple, colours))) < len(colours):
        raise ValueError("colours: expected all different (the ignored ones too), got a colour twice")
    return np.array([*range(len(drawn)), *(IGNORE for _ in ignored)], np.uint8), np.array(colours, np.uint8)


def _advice(file: Path, labels: Sequence[Path]) -> str:
    """A classes.toml that suits the labels found, "" if they say nothing."""
    found, colours = set[int](), set[tuple[int, ...]]()
    for index in evenly_spaced(len(labels), LOOKED_AT):
        try:
            with open_picture(labels[index]) as image:
                pixels = np.asarray(image if image.mode in ("P", "L", "1", "I;16", "I") else image.convert("RGB"))
        except (OSError, ValueError):
            continue
        if pixels.ndim == 2:
            found.update(np.unique(pixels).tolist())
        else:
            colours.update(map(tuple, np.unique(pixels.reshape(-1, 3), axis=0)[: MOST_FOUND + 1].tolist()))
    if not 0 < len(found | colours) <= MOST_FOUND or (found and not 0 <= min(found) <= max(found) <= 255):
        return ""
    text = _of_values(sorted(found)) if found else _of_colours(sorted(colours))
    return f"{printable(str(file))} may be, with names of your own:\n\n{text}"


def _of_values(values: list[int]) -> str:
    if values == [0, 255]:
        return 'map = { 255 = 1 }\nclasses = ["background", "foreground"]'
    lines = ["ignore = 255  # leave this line out if 255 is a class"] if values[-1] == IGNORE else []
    values = values[: len(values) - len(lines)]
    moved = [f"{value} = {number}" for number, value in enumerate(values) if value != number]
    lines += [f"map = {{ {', '.join(moved)} }}"] if moved else []
    return "\n".join([*lines, f"classes = [{', '.join(f'{chr(34)}value {value}{chr(34)}' for value in values)}]"])


def _of_colours(colours: list[tuple[int, ...]]) -> str:
    entries = [f'  {{ name = "colour {number}", colour = {list(colour)} }},' for number, colour in enumerate(colours)]
    return "\n".join(['labels = "colour"', "classes = [", *entries, "]"])
