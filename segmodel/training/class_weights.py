"""Weights of the classes in the loss: given in a file, or by how often each class occurs in the training set."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import UserError, one_line
from segmodel.common.reading import parse_json, parse_toml, read_text
from segmodel.common.tables import Table
from segmodel.data import SegmentationData
from segmodel.data.content import Content, class_pixels

LINE = re.compile(r"""\s*(?:(?P<quote>["']?)(?P<name>.*?)(?P=quote)\s*[=:]\s*)?(?P<weight>[^\s#=:]+)\s*(?:\#.*)?""")
"""NAME = WEIGHT, or WEIGHT alone; the name in quotes or not, and a remark behind it."""


def median_frequency(content: Content, classes: int) -> np.ndarray:
    """Weights ``(C,)`` of median frequency balancing (Eigen and Fergus, 2015; SegNet): median of all / frequency.

    The frequency of a class is its pixels over those of the images in which it occurs, without ignored ones.
    The median is over the classes that occur; one that does not has weight 1, for which no pixel has a use.
    """
    pixels, beside = (counts[:classes].astype(np.float64) for counts in (content.pixels, content.beside))
    here = pixels > 0
    frequency = pixels[here] / beside[here]
    weights = np.ones(classes)
    weights[here] = np.median(frequency) / frequency if here.any() else 1
    return weights


def read_class_weights(path: str, classes: Sequence[str]) -> np.ndarray:
    """The weights ``(C,)`` in a file: NAME = WEIGHT for every class, or a list of C numbers in the classes' order.

    A name that ends in .json or .toml says what the file is; any other has one NAME = WEIGHT, or WEIGHT, a line.

    Raises:
        UserError: it cannot be read, a class is missing or unknown, or a weight is not a finite number above 0.
    """
    where = f"--class-weights: {path}"
    try:
        text = read_text(path, most="SEGMODEL_MAX_CONFIG_BYTES", encoding="utf-8-sig")
        content = _content(text, Path(path).suffix.lower())
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}); expected none, median_frequency or a file"
                        ) from error  # fmt: skip
    except ValueError as error:
        raise UserError(f"{where}: cannot be read ({one_line(error)})") from error
    if isinstance(content, list):
        if len(content) != len(classes):
            raise UserError(f"{where}: expected {len(classes)} weights, got {len(content)}")
        content = dict(zip(classes, content, strict=True))
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected NAME = WEIGHT for each class or a list, got {content!r:.60}")
    for name in content:
        if name not in classes:
            raise UserError(f"{where}: {name!r}: expected one of the classes {', '.join(classes)}")
    missing = [name for name in classes if name not in content]
    if missing:
        raise UserError(f"{where}: expected a weight for every class, got none for {', '.join(missing)}")
    for name in classes:
        value = content[name]
        if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
            raise UserError(f"{where}: {name}: expected a finite number above 0, got {value!r:.60}")
    return np.array([content[name] for name in classes], np.float64)


def _content(text: str, ending: str) -> Any:
    if ending == ".json":
        return parse_json(text, object_pairs_hook=_without_repetition)
    if ending == ".toml":
        return parse_toml(text)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    pairs = []
    for line in lines:
        match = LINE.fullmatch(line)
        try:
            pairs.append((match["name"], float(match["weight"])))  # type: ignore[index]
        except (TypeError, ValueError):
            raise ValueError(f"expected NAME = WEIGHT or WEIGHT, got {line.strip()!r:.80}") from None
    if all(name is None for name, _ in pairs):
        return [weight for _, weight in pairs]
    return _without_repetition(pairs)


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} a second time")
    return dict(pairs)


def class_weights(given: str, data: SegmentationData, *, workers: int) -> tuple[np.ndarray, Table]:
    """What the setting ``class_weights`` says of a training set, other than "none": weights ``(C,)``, and as a table.

    Raises:
        UserError, DataError: the file, or one of the set.
    """
    if given != "median_frequency":
        weights = read_class_weights(given, data.classes)
        rows = [[name, f"{weight:.4g}"] for name, weight in zip(data.classes, weights, strict=True)]
        return weights, Table(f"class weights: {given}", ["class", "weight"], rows)
    content = class_pixels(data, workers=workers)
    weights = median_frequency(content, len(data.classes))
    every = max(1, content.pixels[: len(weights)].sum())
    rows = [
        [name, pixels, f"{100 * pixels / every:.3f}", images, f"{weight:.4g}"]
        for name, pixels, images, weight in zip(
            data.classes, content.pixels.tolist(), content.images.tolist(), weights, strict=False
        )
    ]
    title = f"class weights: median frequency, counted in {content.maps} training images"
    return weights, Table(title, ["class", "pixels", "%", "images", "weight"], rows)
