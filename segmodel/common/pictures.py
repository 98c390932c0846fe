"""Pictures of segmentations: coloured labels, overlays, sheets of several, palette PNG files."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segmodel.common.files import replacing
from segmodel.common.labels import IGNORE, is_background

LINE, ENTRY = 18, 160
"""Height of a line of text on a sheet, and width of an entry of a legend, in pixels."""


def colourise(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Labels ``(H, W)`` as colours ``(H, W, 3)`` uint8; ignored pixels are white."""
    return _colours(palette)[label.astype(np.uint8)]


def _colours(palette: np.ndarray) -> np.ndarray:
    """The palette, and white for the other values of a byte: ``(256, 3)`` uint8."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(palette)] = palette
    return colours


def overlay(
    image: np.ndarray, label: np.ndarray, palette: np.ndarray, *, classes: Sequence[str] = (), opacity: float = 0.6
) -> np.ndarray:
    """The image with its labels' colours laid over it, and their boundaries in white.

    Nothing is laid over the background: the first of the ``classes`` where it is called so.
    """
    mixed = (1 - opacity) * image + opacity * colourise(label, palette)
    if classes and is_background(classes[0]):
        mixed[label == 0] = image[label == 0]
    mixed[edges(label)] = 255
    return mixed.round().astype(np.uint8)


def edges(label: np.ndarray) -> np.ndarray:
    """Where a pixel's label differs from the one to its left or above it, ``(H, W)`` bool."""
    edge = np.zeros(label.shape, bool)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:] |= label[1:] != label[:-1]
    return edge


def busiest_window(label: np.ndarray, side: int) -> tuple[slice, slice]:
    """The square of ``side`` pixels (less in a smaller image) with most ``edges``."""
    return busiest_windows(edges(label), (side, side), 1)[0]


def busiest_windows(where: np.ndarray, size: tuple[int, int], count: int) -> list[tuple[slice, slice]]:
    """Windows of (height, width) pixels (less in a smaller image) that hold most of what is true in ``where`` (H, W).

    Each holds most of what those before it do not; there are at most ``count``, the first always, others if there is
    more to hold.
    """
    rest = where.copy()
    found: list[tuple[slice, slice]] = []
    height, width = (min(side, length) for side, length in zip(size, where.shape, strict=True))
    while len(found) < count and (rest.any() or not found):
        sums = np.pad(rest.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        found.append(np.s_[y : y + height, x : x + width])
        rest[found[-1]] = False
    return found


def boundaries(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Boundaries ``(H, W, 3)`` on white: black in both, blue in the truth alone, red in the prediction alone."""
    predicted, true = edges(prediction), edges(truth)
    drawn = np.full((*truth.shape, 3), 255, np.uint8)
    drawn[predicted] = (210, 50, 40)
    drawn[true] = (40, 90, 220)
    drawn[predicted & true] = 0
    return drawn


def changes(image: np.ndarray, truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where two predictions differ ``(H, W, 3)``, on the image in pale grey; ignored pixels show nothing.

    Green: right in the second alone; red: right in the first alone; orange: wrong in both.
    """
    drawn = (255 - (255 - image.mean(-1, keepdims=True)) / 3).round().astype(np.uint8).repeat(3, -1)
    changed = (before != after) & (truth != IGNORE)
    drawn[changed] = (235, 160, 40)
    drawn[changed & (after == truth)] = (40, 150, 70)
    drawn[changed & (before == truth)] = (210, 40, 50)
    return drawn


def lettered(pieces: Sequence[tuple[str, tuple[int, int, int] | None]], width: int, *, size: int = 15) -> np.ndarray:
    """A strip (height, width, 3) of texts on white, each after a square of its colour, if it has one.

    They go on in the next line where one is full.
    """
    font = ImageFont.load_default(size)
    line, places, x, y = round(1.5 * size), [], 0, 0
    for text, colour in pieces:
        needed = round(font.getlength(text)) + (line if colour else 0)
        if x and x + needed > width:
            x, y = 0, y + line
        places.append((x, y))
        x += needed + size
    canvas = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(canvas)
    for (text, colour), (left, top) in zip(pieces, places, strict=True):
        if colour:
            draw.rectangle((left, top + 3, left + size - 3, top + size), fill=colour, outline="black")
            left += line - 3
        draw.text((left, top), text, "black", font)
    return np.asarray(canvas)


def reduced(
    pixels: np.ndarray, longest: float = math.inf, *, widest: float = math.inf, labels: bool = False
) -> np.ndarray:
    """A picture ``(H, W, 3)``, or labels ``(H, W)``, shrunk to sides of at most ``longest``, a width of ``widest``."""
    sides = pixels.shape[1::-1]
    scale = min(longest / max(sides), widest / sides[0])
    if scale >= 1:
        return pixels
    size = max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))
    way = Image.Resampling.NEAREST if labels else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize(size, way))


def row(image: np.ndarray, labels: Sequence[np.ndarray], palette: np.ndarray) -> list[np.ndarray]:
    """A row of a sheet: the image and, coloured, label maps of it."""
    return [image, *(colourise(label, palette) for label in labels)]


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    gap: int = 4,
    headings: Sequence[str] = (),
    legend: np.ndarray | None = None,
) -> np.ndarray:
    """Pictures in rows and columns on white; each row is as high as its highest picture.

    Args:
        headings: of the columns, which are then as wide as their widest picture.
        legend: a picture below them all.
    """
    if headings:
        widths = [max(picture.shape[1] for picture in column) for column in zip(*rows, strict=True)]
        aligned = [[_widened(*one) for one in zip(row, widths, strict=True)] for row in rows]
        rows = [[_heading(*one, _scale(sum(widths))) for one in zip(headings, widths, strict=True)], *aligned]
    if legend is not None:
        rows = [*rows, [legend]]
    height = [max(picture.shape[0] for picture in row) for row in rows]
    width = max(sum(picture.shape[1] + gap for picture in row) for row in rows) + gap
    canvas = np.full((sum(height) + gap * (len(rows) + 1), width, 3), 255, np.uint8)
    y = gap
    for row, high in zip(rows, height, strict=True):
        x = gap
        for picture in row:
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
            x += picture.shape[1] + gap
        y += high + gap
    return canvas


def _widened(picture: np.ndarray, width: int) -> np.ndarray:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)


def _scale(width: int) -> int:
    """How large the text on a sheet is drawn, so that it can be read where the sheet is shown smaller."""
    return max(1, width // 700)


def _heading(text: str, width: int, scale: int) -> np.ndarray:
    drawn = Image.new("RGB", (width, LINE * scale), "white")
    _write(ImageDraw.Draw(drawn), (2, 2), text, width - 2, scale)
    return np.asarray(drawn)


def legend(values: Iterable[int], classes: Sequence[str], palette: np.ndarray, *, width: int) -> np.ndarray:
    """Colours and names of the classes, 255 being what is ignored, in columns, ``(h, w, 3)``; text as on a sheet."""
    scale = _scale(width)
    line, wide, box = LINE * scale, ENTRY * scale, 14 * scale
    entries = [(value, "(ignored)" if value == IGNORE else classes[value]) for value in sorted(values)]
    columns = max(1, width // wide)
    drawn = Image.new("RGB", (max(width, wide), line * -(-len(entries) // columns)), "white")
    pen = ImageDraw.Draw(drawn)
    for place, (value, name) in enumerate(entries):
        x, y = wide * (place % columns), line * (place // columns)
        pen.rectangle((x + 2, y + 2, x + box, y + box), fill=tuple(_colours(palette)[value].tolist()), outline="black")
        _write(pen, (x + 20 * scale, y + 2), name, wide - 24 * scale, scale)
    return np.asarray(drawn)


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, scale: int) -> None:
    """Writes a text; one that is too long for the width ends in dots."""
    shown = text
    pen.font = ImageFont.load_default(10 * scale)
    while len(text) > 1 and pen.textlength(shown) > width:
        text = text[:-1]
        shown = f"{text}..."
    pen.text(place, shown, fill="black")


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes RGB pixels as a PNG file, atomically."""
    save_image(path, Image.fromarray(pixels))


def save_label(path: Path, label: np.ndarray, palette: np.ndarray) -> None:
    """Writes labels as an 8-bit PNG with a palette; values are class numbers, 255 is ignored (white)."""
    picture = Image.fromarray(label.astype(np.uint8), mode="P")
    picture.putpalette(_colours(palette).tobytes())
    save_image(path, picture)


def save_probabilities(path: Path, probabilities: np.ndarray, classes: Sequence[str]) -> None:
    """Writes ``probabilities`` (C, H, W) and ``classes`` (names) as a compressed .npz file, atomically."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, probabilities=probabilities, classes=np.array(classes))


def save_image(path: Path, picture: Image.Image) -> None:
    """Writes a PIL image as a PNG file, atomically."""
    with replacing(path) as partial:
        picture.save(partial, format="PNG")
