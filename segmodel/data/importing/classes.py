"""What label values become: `--map` renames, merges and ignores them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError, UserError
from segmodel.common.files import write_atomically
from segmodel.common.labels import IGNORE, is_background, voc_palette
from segmodel.common.options import toml_text
from segmodel.data.base import MAX_CLASSES
from segmodel.data.importing.source import Colour, Found, Value

IGNORED = "ignore"
OTHERS = "*"
_NUMBER = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Classes:
    """The classes to be, and which of them, or 255, each label value becomes.

    sources: of each class the values that become it, as the source calls them. absent: names that are left out.
    """

    names: tuple[str, ...]
    palette: np.ndarray
    targets: dict[int, int]
    sources: tuple[str, ...]
    absent: tuple[str, ...]

    def applied(self, values: np.ndarray) -> np.ndarray:
        """The label map (H, W) uint8 of label values (H, W)."""
        known = np.array(sorted(self.targets), np.int64)
        becomes = np.array([self.targets[value] for value in known.tolist()], np.uint8)
        return becomes[np.searchsorted(known, values)]

    def write(self, file: Path) -> None:
        """Writes a classes.toml."""
        lines = [f"ignore = {IGNORE}"]
        for name, colour in zip(self.names, self.palette.tolist(), strict=True):
            lines += ["", "[[classes]]", f"name = {toml_text(name)}", f"colour = {colour}"]
        write_atomically(file, "\n".join([*lines, ""]))


def read_map(text: str) -> dict[str, str]:
    """Source's name -> class, from "10=road,11=road,255=ignore"; numbers without leading zeros, colours as #rrggbb.

    Raises:
        UserError: it has another form.
    """
    mapping: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, name = (word.strip() for word in part.rpartition("="))
        key = str(int(key)) if _NUMBER.fullmatch(key) else key.lower() if key.startswith("#") else key
        if not key or not name or (key.startswith("#") and not re.fullmatch("#[0-9a-f]{6}", key)):
            raise UserError(f'--map: expected such as "10=road,#ff0000=road,cat=pet,255=ignore,*=rest", got {part!r}')
        if mapping.setdefault(key, name) != name:
            raise UserError(f"--map: expected {key} once, got it as {mapping[key]} and {name}")
    return mapping


def mapped_colours(mapping: Mapping[str, str]) -> list[Colour]:
    """The colours, and numbers as greys, that a map names."""
    found: list[Colour] = []
    for key in mapping:
        if key.startswith("#"):
            number = int(key[1:], 16)
            found.append((number >> 16, number >> 8 & 255, number & 255))
        elif _NUMBER.fullmatch(key) and int(key) < 256:
            found.append((int(key),) * 3)
    return found


def decide(
    values: Mapping[int, Value], found: Mapping[int, Found], mapping: Mapping[str, str], *, keep_absent: bool
) -> Classes:
    """The classes of a source's values, in their order but for the background, which is first; one name is one class.

    Raises:
        UserError: the map names a class that there is not. DataError: fewer than two classes, or too many.
    """
    _check_names(values, mapping)
    members: dict[str, list[int]] = {}
    for number, value in values.items():
        named = next((mapping[key] for key in (*value.keys, value.name) if key in mapping), None)
        named = named or ("" if value.ignored else mapping.get(OTHERS, ""))
        if value.unknown and not named:
            raise DataError(f'{value.unknown}; --map says what it is, as in "{value.keys[0]}=NAME"')
        name = named or (IGNORED if value.ignored else value.name)
        members.setdefault("background" if is_background(name) else name, []).append(number)
    members = dict(sorted(members.items(), key=lambda one: not is_background(one[0])))
    shown = {name for name, numbers in members.items() if any(number in found for number in numbers)}
    absent = [name for name in members if name not in shown and name != IGNORED]
    names = tuple(name for name in members if name != IGNORED and (keep_absent or name in shown))
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"expected at most {MAX_CLASSES} classes, got {len(names)}: labels saved with loss or smoothed? --nearest "
            "takes each pixel as the nearest colour of labelmap.txt or of --map, or as 0 or 255"
        )
    if len(shown - {IGNORED}) < 2:
        only = ", ".join(sorted(shown)) or "none"
        raise DataError(f"expected labels of at least two classes, got {only}: there is nothing to learn")
    targets = {number: names.index(name) if name in names else IGNORE for name in members for number in members[name]}
    palette = _palette([[_colour(values[n], found.get(n)) for n in members[name]] for name in names])
    sources = tuple(", ".join((*values[n].keys, values[n].name)[0] for n in members[name]) for name in names)
    return Classes(names, palette, targets, sources, () if keep_absent else tuple(absent))


def _check_names(values: Mapping[int, Value], mapping: Mapping[str, str]) -> None:
    known = {text for value in values.values() for text in (*value.keys, value.name)}
    for key in mapping:
        if key not in known and key != OTHERS and not _NUMBER.fullmatch(key) and not key.startswith("#"):
            near = difflib.get_close_matches(key, known, 1) or list(dict.fromkeys(v.name for v in values.values()))[:10]
            raise UserError(f"--map: expected a class of the source, such as {', '.join(near)}, got {key!r:.100}")


def _colour(value: Value, found: Found | None) -> Colour | None:
    return value.colour or (found.colour if found else None)


def _palette(wanted: Sequence[Sequence[Colour | None]]) -> np.ndarray:
    """A colour for each class: the first of its own that no class before it has, else one of VOC's that none has."""
    chosen: list[Colour | None] = []
    for colours in wanted:
        chosen.append(next((colour for colour in colours if colour and colour not in chosen), None))
    free = iter([colour for colour in map(tuple, voc_palette(256).tolist()) if colour not in chosen])
    return np.array([colour or next(free) for colour in chosen], np.uint8)
