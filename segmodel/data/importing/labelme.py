"""labelme's JSON: a file a picture, with shapes that people drew. Where shapes overlap, the later lies on top.

Polygons, rectangles and circles are the pixels whose centres lie inside; lines and points, which have no area, are
drawn 10 pixels thick, as labelme draws them. A shape called __ignore__ is ignored, one called _background_ is
background, and so is what no shape covers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from segmodel.common.errors import DataError, one_line
from segmodel.common.labels import is_background
from segmodel.common.reading import parse_json, read_text
from segmodel.data.images import open_picture
from segmodel.data.importing import shapes
from segmodel.data.importing.source import Found, Item, Source, Value
from segmodel.data.importing.tree import File, Tree, listed, pair

IGNORED = "__ignore__"
THICK = 10  # pixels, of lines and points
KEYS = ("shapes", "imagePath")


@dataclass
class Labelme(Source):
    """Labels as labelme's files; values are places in `names`, 0 is background."""

    names: list[str] = field(default_factory=list)

    def label(self, item: Item, size: tuple[int, int]) -> np.ndarray:
        content = read_json(item.label)
        height, width = content.get("imageHeight") or size[0], content.get("imageWidth") or size[1]
        if (height, width) not in (size, size[::-1]):
            got = f"{width!r:.20}x{height!r:.20}"
            raise DataError(f"{item.label}: expected imageWidth and imageHeight {size[1]}x{size[0]}, got {got}")
        label = np.zeros((height, width), np.int32)
        for number, shape in enumerate(content["shapes"]):
            try:
                mask = _mask(shape, height, width)
            except (ValueError, TypeError, LookupError, OSError, SyntaxError) as error:
                raise DataError(f"{item.label}: shapes[{number}]: {one_line(error)}") from error
            label[mask] = self.names.index(shape["label"])
        return label

    def values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        return {value: Value(name, ignored=name == IGNORED) for value, name in enumerate(self.names)}


def open_labelme(tree: Tree, files: list[File]) -> Labelme:
    """The pictures that labelme's files name, those of the files' own names, or those within the files."""
    source, names = Labelme("labelme"), set[str]()
    by_name: dict[str, list[File]] = {}
    for file in tree.pictures:
        by_name.setdefault(file.path.name.casefold(), []).append(file)
    partners = {label: image for image, label in pair(tree.pictures, files).pairs}
    lonely: list[Path] = []
    for file in files:
        try:
            content = read_json(file.path)
        except DataError as error:
            source.wrong += error.args
            continue
        shapes_ = content["shapes"]
        names.update(shape["label"] for shape in shapes_)
        named = by_name.get(PureWindowsPath(str(content.get("imagePath"))).name.casefold(), [])  # takes / and \
        beside = [image for image in named if image.path.parent == file.path.parent]
        image = partners.get(file) or next(iter(beside if len(beside) == 1 else named if len(named) == 1 else []), None)
        if image:
            source.items.append(Item(image.name, image.path, file.path, image.split()))
        elif content.get("imageData"):
            source.items.append(Item(file.name, _picture(file, content, tree.scratch), file.path, file.split()))
        else:
            lonely.append(file.path)
    used = {item.image for item in source.items}
    unlabelled = [file.path for file in tree.pictures if file.path not in used]
    for what, paths in (("pictures without a label", unlabelled), ("labels without a picture", lonely)):
        source.notes += [listed(what, paths)] if paths else []
    source.names = ["background", *sorted(names - {"background"})]
    return source


def read_json(file: Path) -> dict[str, Any]:
    """labelme's content of a file, whose "shapes" are checked to be a list of objects with a "label".

    Raises:
        DataError: it cannot be read, or is none of labelme's.
    """
    try:
        content = parse_json(read_text(file, most="SEGMODEL_MAX_JSON_BYTES", encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {one_line(error)}") from error
    entries = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{file}: expected a list as shapes, got {entries!r:.60}")
    for number, shape in enumerate(entries):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            raise DataError(f"{file}: shapes[{number}]: expected a shape with a label, got {shape!r:.60}")
        if shape["label"] == "_background_" or is_background(shape["label"]):
            shape["label"] = "background"
    return content


def _mask(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    kind = shape.get("shape_type") or "polygon"
    least = {"polygon": 3, "linestrip": 2, "line": 2, "rectangle": 2, "circle": 2, "mask": 2}.get(kind, 1)
    points: Any = shape.get("points")
    points = shapes.checked_points(points, height, width, least=least)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points[:2]
        points, kind = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), "polygon"
    if kind in ("polygon", "oriented_rectangle"):
        return shapes.polygon(points, height, width)
    if kind == "circle":
        return shapes.circle(points[0], points[1], height, width)
    if kind in ("line", "linestrip", "point"):
        return shapes.strokes(points, height, width, thickness=THICK)
    if kind == "points":
        return np.any([shapes.strokes(p[None], height, width, thickness=THICK) for p in points], axis=0)
    if kind == "mask":
        return _pasted(shape["mask"], points, height, width)
    raise ValueError(f"expected a polygon, rectangle, circle, line, point or mask, got {kind!r:.40}")


def _pasted(text: str, points: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask that is a PNG within the file, at its box in the picture."""
    (left, top), (right, bottom) = points.min(0).astype(int), points.max(0).astype(int)
    with open_picture(BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        if image.size != (right - left + 1, bottom - top + 1) or left < 0 or top < 0:
            raise ValueError(f"expected a mask of {right - left + 1}x{bottom - top + 1}, got {image.size}")
        part = np.array(image.convert("L")) > 0
    mask = np.zeros((height, width), bool)
    mask[top : bottom + 1, left : right + 1] = part[: height - top, : width - left]
    return mask


def _picture(file: File, content: dict[str, Any], scratch: Path) -> Path:
    """The picture within a file, as a file of its own; as it stands there."""
    try:
        data = base64.b64decode(content["imageData"])
    except (TypeError, ValueError, binascii.Error) as error:
        raise DataError(f"{file.path}: imageData: {one_line(error)}") from error
    scratch.mkdir(parents=True, exist_ok=True)
    ending = "png" if data.startswith(b"\x89PNG") else "jpg"
    path = scratch / f"{len(list(scratch.iterdir()))}.{ending}"
    path.write_bytes(data)
    return path
