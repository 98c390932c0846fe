"""SegModel: the paper's network, and its way from and to pictures and files."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from segmodel.common.device import autocast_dtype, evaluating
from segmodel.common.errors import UserError, memory_named
from segmodel.data.images import has_picture_name, picture_endings, picture_pixels, read_image
from segmodel.inference.views import label_maps
from segmodel.model.network import Network
from segmodel.model.store import load_network, save_pretrained
from segmodel.model.untrained_crf import crf_from_scores


class SegModel(Network):
    """A ``Network`` that segments pictures, is loaded from runs and files, and saved for others."""

    @classmethod
    def load(cls, path: str | Path) -> "SegModel":
        """The model of a run folder (its best checkpoint, else its last), a model folder or a checkpoint file.

        It is in evaluation mode, nothing in the file is executed, and ``model.classes`` and ``model.palette`` hold what
        it was trained on.

        Raises:
            ValueError: no checkpoint there, not one of segmodel's, or a card.json that says something else.
        """
        return load_network(path, cls)

    def segment(self, image: Any, *, guidance: bool | Literal["auto"] | None = None) -> Any:
        """Labels ``(H, W)`` uint8, class numbers, of a picture, at its size.

        Args:
            image: an array ``(H, W, 3)`` (RGB, not BGR) or ``(H, W)``, uint8; a PIL image; the path of a picture. A
                list or tuple of such gives a list. The path of a folder gives a dict from each picture's path to its
                labels. Files are read upright, as their EXIF orientation says; the pixels of arrays and PIL images are
                taken as they lie (``PIL.ImageOps.exif_transpose`` turns an opened picture).
            guidance: the guidance CRF on or off; "auto": an untrained one whose settings follow from the scores, as in
                ``segmodel.refine`` (None: as configured).

        Convolutions are bfloat16 where the processor is fast with it. The model stays in its mode (training or not).

        Raises:
            ValueError: not such an image, an unreadable file, or a folder without pictures.
        """
        with memory_named("segment"):
            return self._segmented(image, guidance)

    def _segmented(self, image: Any, guidance: bool | Literal["auto"] | None) -> Any:
        if isinstance(image, list | tuple):
            return [self._labels(item, guidance) for item in image]
        if isinstance(image, str | Path) and os.path.isdir(image):
            return {file: self._labels(file, guidance) for file in pictures_in(Path(image))}
        return self._labels(image, guidance)

    def save_pretrained(self, folder: str | Path, **about: Any) -> None:
        """Writes model.safetensors and card.json, for ``from_pretrained`` and for others to read.

        The card holds classes, palette, normalisation and channel order, configuration, versions, and ``about``: any of
        ``licence``, ``training_data``, ``scores``, ``data``, ``step``, ``total_steps`` (JSON values); what is not given
        is taken from ``self.card``, which ``load`` fills. A folder that is there is written over.

        Raises:
            ValueError: a model without ``classes`` and ``palette``, or an unknown name.
        """
        save_pretrained(self, folder, **about)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "SegModel":
        """The model of a folder of ``save_pretrained``, bit for bit, ready for inference: the same as ``load``."""
        return cls.load(folder)

    def _labels(self, image: Any, guidance: bool | Literal["auto"] | None) -> np.ndarray:
        picture = pixels(image)
        with evaluating(self):
            dtype = autocast_dtype("auto", self.image_mean.device)
            own = crf_from_scores if guidance == "auto" else guidance
            return label_maps(self, picture, guidance={"model": own}, dtype=dtype)["model"]


def pixels(image: Any) -> np.ndarray:
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


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted; not those of folders in it."""
    known = picture_endings()
    files = sorted(file for file in folder.iterdir() if has_picture_name(file, known) and file.is_file())
    if not files:
        raise UserError(f"{folder}: no picture in this folder")
    return files
