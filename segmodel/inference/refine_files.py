"""Files of scores, masks and labels, refined one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from segmodel.common.errors import UserError
from segmodel.common.files import replacing, writing
from segmodel.common.labels import voc_palette
from segmodel.common.pictures import save_image, save_label
from segmodel.data.images import read_image
from segmodel.inference.comparison import compare, labels_of
from segmodel.inference.explore import explorer
from segmodel.inference.inputs import Layout, read_scores
from segmodel.inference.label_pictures import LabelPicture
from segmodel.inference.refine import refine, refine_mask
from segmodel.inference.refine_labels import refine_labels

Kind = Literal["scores", "labels", "probabilities", "logits"]
"""What a file holds: scores (C, h, w), or of two dimensions a mask; labels; probabilities or logits of a mask."""
FLAGS = {
    "give their logarithm": "say --probabilities",
    "give logits=True": "say --logits",
    'give layout="HWC", or "CHW"': "say --layout HWC, or CHW",
    'give layout="CHW"': "say --layout CHW",
}
"""What an error advises in Python, and what that is on the command line."""
SHOWN = 8
"""Values of a picture that an error names."""


@dataclass(frozen=True)
class Job:
    """Files: the image, what is refined, the result, and the picture that compares them, if it is wanted."""

    image: Path
    scores: Path
    output: Path
    compared: Path | None = None


def refine_file(job: Job, kind: Kind, options: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[int, int, str]:
    """Refines one file and writes the result: pixels that have changed, pixels, and a line that says so.

    Args:
        options: layout, ignore, fill, confidence. settings: fields of ``Refinement``.

    Raises:
        UserError: a file that cannot be read, does not fit or cannot be written.
    """
    image, orientation = read_image(job.image)
    try:
        picture = None if job.scores.suffix.lower() == ".npy" else LabelPicture.of(job.scores)
        given = _read(job, kind, picture, options["layout"])
        if orientation > 4:
            _check_upright(given.shape[:2] if options["layout"] == "HWC" else given.shape[-2:], image, orientation)
        result = _refined(given, image, kind, options, settings, colours=picture is not None and picture.colours)
        before, after = (labels_of(kind, values, image.shape[:2], options["layout"]) for values in (given, result))
    except ValueError as error:
        text = _on_the_command_line(error)
        raise UserError(text if text.startswith(str(job.scores)) else f"{job.scores}: {text}") from error
    with writing("", job.output):
        _write(job.output, result, kind, picture, options["layout"])
    if job.compared:
        with writing("", job.compared):
            save_image(job.compared, compare(image, before, after, palette=picture.table() if picture else None))
    changed, pixels = int((before != after).sum()), before.size
    turned = f" (turned upright, EXIF orientation {orientation})" if orientation > 1 else ""
    size = f"{image.shape[1]}x{image.shape[0]}{turned}"
    return (
        changed,
        pixels,
        f"{job.output}: {size}, {changed:,} of {pixels:,} pixels changed ({100 * changed / pixels:.2f} %)",
    )


def explored(
    image: Path, scores: Path, kind: Kind, *, names: Sequence[str], layout: Layout | None, settings: Mapping[str, Any]
) -> str:
    """The page of ``explore.explorer`` for files of a picture and of scores or probabilities.

    Raises:
        UserError: a file that cannot be read or does not fit.
    """
    pixels, orientation = read_image(image)
    given = read_scores(scores)
    given = given[0] if given.ndim == 4 and len(given) == 1 else given
    try:
        if orientation > 4:
            _check_upright(given.shape[:2] if layout == "HWC" else given.shape[-2:], pixels, orientation)
        if kind == "probabilities":
            given = _log(given, -1 if layout == "HWC" else 0)
        title = f"{image.name}: labels before and after refinement"
        return explorer(given, pixels, title=title, names=names, layout=layout, **settings)
    except ValueError as error:
        raise UserError(f"{scores}: {_on_the_command_line(error)}") from error


def _on_the_command_line(error: ValueError) -> str:
    """An error's text with flags for arguments."""
    text = str(error)
    for argument, flag in FLAGS.items():
        text = text.replace(argument, flag)
    return text


def _check_upright(size: Sequence[int], image: np.ndarray, orientation: int) -> None:
    """Refuses scores of the pixels as stored, where the picture has been turned on its side."""
    height, width = image.shape[:2]
    if (size[0] - size[1]) * (height - width) < 0:
        raise ValueError(f"expected scores of the upright picture, {width}x{height} (EXIF orientation {orientation} is "
                         f"applied), got {size[1]}x{size[0]}")  # fmt: skip


def _refined(
    given: np.ndarray, image: np.ndarray, kind: Kind, options: Mapping[str, Any], settings: Mapping[str, Any], *,
    colours: bool,
) -> np.ndarray:  # fmt: skip
    if kind == "labels":
        ignore = None if colours else options["ignore"]
        return refine_labels(given, image, ignore=ignore, fill=options["fill"], confidence=options["confidence"],
                             **settings)  # fmt: skip
    if given.ndim == 2:
        return refine_mask(given, image, logits=kind == "logits", confidence=options["confidence"], **settings)
    if kind == "probabilities":
        given = _log(given, -1 if options["layout"] == "HWC" else 0)
    return refine(given, image, layout=options["layout"], **settings)


def _log(probabilities: np.ndarray, classes: int) -> np.ndarray:
    """The logarithm of what must be probabilities along an axis."""
    values = probabilities.astype(np.float32)
    if not (values.min() >= 0 and np.abs(values.sum(classes) - 1).max() < 1e-2):
        raise ValueError(f"expected probabilities that sum to 1 over the classes, got {values.min():g} to "
                         f"{values.max():g}")  # fmt: skip
    return np.log(values.clip(1e-6))


def _read(job: Job, kind: Kind, picture: LabelPicture | None, layout: str | None) -> np.ndarray:
    """The array of a file, checked against what it is said to hold."""
    values = picture.values if picture else read_scores(job.scores)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim != 2 and (values.ndim != 3 or kind in ("labels", "logits")):
        expected = f"(h, w) for {kind}" if kind in ("labels", "logits") else "(C, h, w) or (h, w)"
        raise UserError(f"{job.scores}: expected {expected}, got {values.shape}")
    classes = values.shape[-1 if layout == "HWC" else 0]
    if values.ndim == 3 and classes > 255 and job.output.suffix.lower() == ".png":
        raise UserError(f"{job.scores}: expected (C, h, w) with at most 255 classes for a PNG, got {values.shape}")
    if kind == "labels" or values.dtype.kind == "f":
        return values
    if picture and picture.colours:
        raise UserError(f"{job.scores}: expected a grey mask, got colours (--labels: each is a class)")
    if kind == "probabilities":
        return values / np.float32(1 if values.dtype == bool else 255)
    found = set(np.unique(values).tolist())
    if values.ndim == 2 and not (found <= {0, 1} or found <= {0, 255}):
        shown = ", ".join(map(str, sorted(found)[:SHOWN])) + ", ..." * (len(found) > SHOWN)
        raise UserError(f"{job.scores}: expected a mask of 0 and 1, or 0 and 255, got the values {shown}; say --labels "
                        "if they are classes, --probabilities if grey is probability")  # fmt: skip
    return values


def _write(path: Path, result: np.ndarray, kind: Kind, picture: LabelPicture | None, layout: str | None) -> None:
    """Writes the result: .npy as it is; .png in the kind of picture that was given, of scores the labels."""
    if path.suffix.lower() == ".npy":
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, result)
    elif result.ndim == 3:
        save_label(path, result.argmax(-1 if layout == "HWC" else 0), voc_palette(256))
    elif result.dtype.kind == "f":
        save_image(
            path, Image.fromarray((255 * (result >= 0 if kind == "logits" else result)).round().astype(np.uint8))
        )
    elif picture:
        save_image(path, picture.drawn(result))
    elif kind == "labels" and result.min() >= 0 and result.max() <= 255:
        save_label(path, result, voc_palette(256))
    elif result.min() >= 0 and result.max() <= 65535:
        wide = np.uint16 if result.max() > 255 else np.uint8
        save_image(
            path, Image.fromarray(255 * result.astype(np.uint8) if result.dtype == bool else result.astype(wide))
        )
    else:
        raise UserError(f"{path}: expected labels in 0..65535 for a PNG, got {result.min()} to {result.max()}; "
                        "an .npy file holds any")  # fmt: skip
