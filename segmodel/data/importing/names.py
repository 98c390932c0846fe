"""Reads the files in which annotation tools keep the names of classes."""

from __future__ import annotations

import re
from pathlib import Path

from segmodel.common.errors import DataError, one_line
from segmodel.common.reading import read_text
from segmodel.data.importing.source import Colour
from segmodel.data.importing.tree import Tree

_LISTS = ("classes.txt", "class_names.txt", "labels.txt", "label_names.txt", "names.txt", "obj.names")
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


def text_of(file: Path) -> str:
    """The text of a small file, in UTF-8 with or without a byte-order mark.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return read_text(file, most="SEGMODEL_MAX_LIST_BYTES", encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {one_line(error)}") from error


def class_colours(tree: Tree) -> tuple[Path | None, dict[Colour, str]]:
    """The file that says which colour is which class, and what it says: CVAT's labelmap.txt or label_colors.txt."""
    for file in tree.named("labelmap.txt", "label_colors.txt"):
        colours: dict[Colour, str] = {}
        for number, line in enumerate(text_of(file).splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            wrong = f"{file}, line {number}: expected NAME:RED,GREEN,BLUE or RED GREEN BLUE NAME, got {line!r:.100}"
            cvat = re.fullmatch(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3})(?::.*)?", line.strip())
            camvid = re.fullmatch(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(.+)", line.strip())
            if not cvat and not camvid:
                raise DataError(wrong)
            name, *parts = cvat.groups() if cvat else (camvid[4], *camvid.groups()[:3])  # type: ignore[index, union-attr]
            red, green, blue = map(int, parts)
            if max(red, green, blue) > 255:
                raise DataError(wrong)
            if (other := colours.setdefault((red, green, blue), name)) != name:
                raise DataError(f"{file}, line {number}: {name} has the colour of {other}")
        return file, colours
    return None, {}


def class_names(tree: Tree) -> tuple[Path | None, dict[int, str]]:
    """The file that says which number is which class, and what it says: a list of names, YOLO's data.yaml, or
    Roboflow's _classes.csv."""
    for file in tree.named(*_YAML):
        if names := _yaml_names(text_of(file)):
            return file, names
    for file in tree.named("_classes.csv"):
        rows = [line.split(",", 1) for line in text_of(file).splitlines()[1:] if line.strip()]
        if rows and all(len(row) == 2 and re.fullmatch(r"\s*[0-9]{1,9}\s*", row[0]) for row in rows):
            return file, {int(number): name.strip() for number, name in rows}
    for file in tree.named(*_LISTS):
        names_in_order = [line.strip() for line in text_of(file).splitlines() if line.strip()]
        if names_in_order[:1] == ["__ignore__"]:  # labelme's first, for pixels of -1
            del names_in_order[0]
        if names_in_order:
            return file, dict(enumerate(names_in_order))
    return None, {}


def _yaml_names(text: str) -> dict[int, str]:
    """The value of "names" in the forms that YOLO's tools write: a list or a mapping, in one line or below."""
    match = re.search(r"^names[ \t]*:[ \t]*(.*(?:\n(?![A-Za-z_]).*)*)", text, re.MULTILINE)
    if not match:
        return {}
    value = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in match[1].splitlines()).strip()
    if value[:1] in ("[", "{"):
        entries = re.findall(r"""(?:([0-9]{1,9})\s*:\s*)?("[^"]*"|'[^']*'|[^\s,\[\]{}][^,\[\]{}]*)""", value)
    else:
        entries = [
            (number, name)
            for line in value.splitlines()
            for number, name in re.findall(r"^\s*(?:-|([0-9]{1,9})\s*:)\s*(.+?)\s*$", line)
        ]
    return {int(number or place): name.strip().strip("\"'") for place, (number, name) in enumerate(entries)}
