"""Pictures in, labels out: what ``SegModel.segment`` does."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segmodel.data.base import has_picture_name, picture_endings, picture_pixels, read_image
from segmodel.errors import UserError
from segmodel.inference import autocast_dtype, evaluating, label_maps
from segmodel.model import SegModel

Picture = np.ndarray | Image.Image | str | Path


def pixels(image: Picture) -> np.ndarray:
    """``(H, W, 3)`` uint8, RGB, of an array, a PIL image or a file.

    Raises:
        ValueError: another type, shape or dtype, or a file that is no picture.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))[0]
    if isinstance(image, Image.Image):
        return picture_pixels(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image: expected an array, a PIL image or a path, got {type(image).__name__}")
    grey = image.ndim == 2
    if image.dtype != np.uint8 or image.size == 0 or not (grey or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"image: expected uint8 (H, W, 3), RGB, or (H, W), got {image.dtype} {image.shape}")
    return np.repeat(image[..., None], 3, axis=2) if grey else image


def segment(
    model: SegModel, image: Picture | Sequence[Picture], *, guidance: bool | None = None
) -> np.ndarray | list[np.ndarray] | dict[Path, np.ndarray]:
    """See ``SegModel.segment``."""
    if isinstance(image, list | tuple):
        return [_labels(model, pixels(item), guidance) for item in image]
    if isinstance(image, str | Path) and os.path.isdir(image):
        files = pictures_in(Path(image))
        return {file: _labels(model, pixels(file), guidance) for file in files}
    return _labels(model, pixels(image), guidance)  # type: ignore[arg-type]


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted; not those of folders in it."""
    known = picture_endings()
    files = sorted(file for file in folder.iterdir() if has_picture_name(file, known) and file.is_file())
    if not files:
        raise UserError(f"{folder}: no picture in this folder")
    return files


def _labels(model: SegModel, image: np.ndarray, guidance: bool | None) -> np.ndarray:
    with evaluating(model):
        dtype = autocast_dtype("auto", next(model.parameters()).device)
        return label_maps(model, image, modes=[guidance], dtype=dtype)[0]
