"""Two segmentations of an image beside each other, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from segmodel.common.labels import voc_palette
from segmodel.common.pictures import busiest_windows, edges, lettered, overlay, sheet
from segmodel.inference.guides import Ranges, image_tensor
from segmodel.inference.inputs import Layout, check_layout, class_first
from segmodel.inference.label_pictures import LabelPicture
from segmodel.inference.tensors import as_tensor, describe

BOTH, BEFORE, AFTER = (0, 0, 0), (235, 30, 30), (20, 90, 255)
"""Colours of the boundaries that are in both, and in one of the two alone."""
LEGEND = 24
"""Most classes that the legend names."""
TITLES = ("image", "before", "after", "boundaries")
WIDTH, CLOSER, GAP = 400, 5, 4
"""About how many pixels a panel is wide, how much closer a close-up is, and what lies between two panels."""
Entry = tuple[str, tuple[int, int, int] | None]


def compare(
    image: object,
    before: object,
    after: object,
    *,
    names: Sequence[str] | None = None,
    palette: np.ndarray | None = None,
    close_ups: int = 3,
    layout: Layout | None = None,
    image_range: Ranges | None = None,
    image_layout: Layout | None = None,
) -> Image.Image:
    """A picture of two segmentations of an image: both, their boundaries, and close-ups where they differ most.

    A notebook shows it; ``.save("compared.png")`` writes it.

    Args:
        image: one image, see ``refine``. Of several bands the first three are shown, of two the first.
        before, after: each a label map ``(h, w)``, a mask (true and false, probabilities, or logits with values outside
            of 0..1), scores ``(C, h, w)``, or a PIL image or path of labels. What is smaller than the image is
            enlarged, scores bilinearly.
        names: of the classes, for the legend (default: their numbers).
        palette: colours of the classes ``(C, 3)`` uint8 (default: those of Pascal VOC).
        close_ups: how many there are at most.
        layout: of scores, see ``refine``.
        image_range, image_layout: see ``refine``.

    Raises:
        ValueError: on a shape, dtype or value range that does not fit.
    """
    pixels = image_tensor(image, image_range=image_range, layout=image_layout, device=torch.device("cpu"))
    if len(pixels) != 1:
        raise ValueError(f"image: expected one, got {len(pixels)}")
    shown = pixels[0, :3] if pixels.shape[1] > 2 else pixels[0, :1].expand(3, -1, -1)
    photo = shown.detach().round().byte().permute(1, 2, 0).numpy()
    size = photo.shape[:2]
    old, new = (labels_of(name, given, size, layout) for name, given in (("before", before), ("after", after)))
    values, positions = np.unique(np.stack([old, new]), return_inverse=True)
    old, new = positions.reshape(2, *size)
    colours = _colours(values, voc_palette(256) if palette is None else palette)
    different = old != new
    panels = [photo, *(overlay(photo, labels, colours, opacity=0.4) for labels in (old, new)),
              boundaries_on(photo, old, new)]  # fmt: skip
    scale = max(1, round(WIDTH / size[1]))
    windows = busiest_windows(different, (-(-size[0] // CLOSER), -(-size[1] // CLOSER)), close_ups)
    rows = [[_magnified(panel, scale) for panel in panels]]
    rows += [[_magnified(panel[window], scale * CLOSER)[: size[0] * scale, : size[1] * scale] for panel in panels]
             for window in windows if different.any()]  # fmt: skip
    legend: list[Entry] = []
    for value, (red, green, blue) in zip(values.tolist(), colours.tolist(), strict=True):
        legend.append((names[value] if names and 0 <= value < len(names) else str(value), (red, green, blue)))
    return _arranged(rows, legend, different)


def labels_of(name: str, given: object, size: Sequence[int], layout: Layout | None = None) -> np.ndarray:
    """The labels ``(H, W)`` int64, at an image's size, of anything that ``compare`` takes.

    Raises:
        ValueError: any other shape.
    """
    if isinstance(given, Image.Image | str | Path):
        given = LabelPicture.of(given).values
    tensor = class_first(as_tensor(name, given).detach().cpu(), layout)
    if tensor.ndim == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim not in (2, 3) or 0 in tensor.shape or (tensor.ndim == 3 and not tensor.is_floating_point()):
        raise ValueError(f"{name}: expected labels or a mask (h, w), or scores (C, h, w), got {describe(given)}")
    if not tensor.is_floating_point():
        return _enlarged(tensor[None].double(), size, mode="nearest-exact")[0].long().numpy()
    if tensor.ndim == 3:
        if layout is None:
            check_layout(name, given, tensor.shape, size)
        return _enlarged(tensor.float(), size).argmax(0).numpy()
    low, high = (value.item() for value in tensor.aminmax())
    threshold = 0.5 if 0 <= low <= high <= 1 else 0.0
    return (_enlarged(tensor[None].float(), size)[0] >= threshold).long().numpy()


def _enlarged(planes: Tensor, size: Sequence[int], *, mode: str = "bilinear") -> Tensor:
    if planes.shape[1:] == torch.Size(size):
        return planes
    larger = planes.shape[1] > size[0] or planes.shape[2] > size[1]
    options = {"align_corners": False, "antialias": larger} if mode == "bilinear" else {}
    return functional.interpolate(planes[None], (size[0], size[1]), mode=mode, **options)[0]


def boundaries_on(photo: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The image pale and grey, ``(H, W, 3)`` uint8, with the boundaries of two label maps."""
    grey = 128 + photo.mean(2, keepdims=True) / 2
    drawn = np.repeat(grey, 3, 2).astype(np.uint8)
    old, new = edges(before), edges(after)
    drawn[old], drawn[new], drawn[old & new] = BEFORE, AFTER, BOTH
    return drawn


def _colours(values: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """A colour for each value, ``(K, 3)`` uint8: the palette's, in turn where it has none; 255 is white.

    Of a picture of colours the values are colours.
    """
    if values.max() > 0xFFFF:
        return (values[:, None] >> (16, 8, 0) & 255).astype(np.uint8)
    inside = palette[values % len(palette)]
    return np.where((values == 255)[:, None], 255, inside).astype(np.uint8)


def _magnified(panel: np.ndarray, scale: int) -> np.ndarray:
    return np.repeat(np.repeat(panel, scale, 0), scale, 1)


def _arranged(rows: list[list[np.ndarray]], legend: list[Entry], different: np.ndarray) -> Image.Image:
    """Titles, the rows, and the legend."""
    width = len(rows[0]) * (rows[0][0].shape[1] + GAP) + GAP
    count = int(different.sum())
    title = f"{count:,} of {different.size:,} pixels differ ({100 * count / different.size:.2f} %)"
    title += "; below, where they differ most" * (len(rows) > 1)
    more: list[Entry] = [(f"and {len(legend) - LEGEND} more", None)] if len(legend) > LEGEND else []
    lines: list[Entry] = [("boundary in both", BOTH), ("before alone", BEFORE), ("after alone", AFTER)]
    heads = [lettered([(text, None)], rows[0][0].shape[1]) for text in TITLES]
    foot = lettered([*lines, *legend[:LEGEND], *more], width - 2 * GAP)
    return Image.fromarray(sheet([[lettered([(title, None)], width - 2 * GAP)], heads, *rows, [foot]], gap=GAP))
