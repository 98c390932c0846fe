"""The augmentations of Sec. 7.1.2: scale, aspect and colour jitter, horizontal mirror, a crop of fixed size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from segmodel.common.errors import UserError
from segmodel.common.labels import IGNORE
from segmodel.common.options import Section, option
from segmodel.data.base import Sample, SegmentationData


@dataclass(frozen=True)
class Augmentation(Section):
    """Makes of each sample a random variant of exactly the crop's size.

    crop: (height, width) of the result.
    scale: both sides are scaled by 2^u, u uniform between the logarithms of the range (the exponential law: authors'
        code). (1, 1) switches it off.
    aspect: width / height changes by a factor from this range, drawn like the scale; the area stays. (1, 1): off.
    colour_shift: with probability 1/2 each channel is shifted by an integer from -colour_shift..colour_shift - 1 and
        clipped to 0..255 ("color altering" in Sec. 7.1.2). 0 switches it off.
    mean_colour: fills the image where the scaled one is smaller than the crop (authors' code); the label there is 255.

    Images are resized with a cubic kernel (widened by the factor when shrinking), labels take the nearest pixel, both
    with half-pixel centres; only the pixels of the crop are computed.
    """

    crop: tuple[int, int] = option((321, 321), "height and width of a training sample", at_least=1, at_most=65536)
    scale: tuple[float, float] = option((0.5, 2.0), "range of the scale jitter", "Sec. 7.1.2", above=0)
    aspect: tuple[float, float] = option((4 / 5, 5 / 4), "range of the width/height jitter", "Sec. 7.1.2", above=0)
    colour_shift: int = option(20, "largest shift of a channel, 0: none", "authors' code", at_least=0, at_most=255)
    mirror: bool = option(True, "mirror left and right with probability 1/2", "Sec. 7.1.2")
    mean_colour: tuple[int, int, int] = option(
        (124, 116, 104), "RGB beside an image smaller than the crop", "ImageNet", at_least=0, at_most=255
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (low, high) in (("scale", self.scale), ("aspect", self.aspect)):
            if low > high:
                raise UserError(f"{name}: expected (low, high) with 0 < low <= high, got {(low, high)}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A random variant of `sample`, a function of the state of `rng`, of which it always draws eleven numbers."""
        draw = rng.random(11)
        height, width = sample.label.shape
        scale, aspect = _exponential(self.scale, draw[0]), math.sqrt(_exponential(self.aspect, draw[1]))
        rows = _axis(height, max(1, round(height * scale / aspect)), self.crop[0], draw[2])
        columns = _axis(width, max(1, round(width * scale * aspect)), self.crop[1], draw[3])
        # Pillow resizes, shifts, pads and mirrors: several times faster than array operations here.
        picture = Image.new("RGB", self.crop[::-1], self.mean_colour)
        picture.paste(self._shifted(_resized(sample.image, rows, columns), draw[4:10]), (columns.offset, rows.offset))
        label = np.full(self.crop, IGNORE, np.uint8)
        target = tuple(slice(axis.offset, axis.offset + len(axis.nearest)) for axis in (rows, columns))
        label[target] = sample.label[rows.nearest[:, None], columns.nearest]
        if self.mirror and draw[10] < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            label = np.ascontiguousarray(label[:, ::-1])
        return Sample(np.array(picture), label, sample.name)

    def _shifted(self, image: Image.Image, draw: np.ndarray) -> Image.Image:
        shift = np.floor((2 * draw[:3] - 1) * self.colour_shift).astype(np.int64)
        shift[draw[3:] < 0.5] = 0
        if not shift.any():
            return image
        return image.point(np.clip(np.arange(256) + shift[:, None], 0, 255).ravel().tolist())


@dataclass(frozen=True)
class _Axis:
    """One axis: `box` of the source fills the crop from `offset` on; pixel k there is nearest to pixel nearest[k]."""

    box: tuple[float, float]
    offset: int
    nearest: np.ndarray


def _axis(size: int, resized: int, crop: int, draw: float) -> _Axis:
    """A uniformly drawn place of the crop in the resized axis, or of the resized axis in the crop if that is larger."""
    start = int(draw * (abs(resized - crop) + 1))
    count = min(resized, crop)
    first, offset = (start, 0) if resized >= crop else (0, start)
    step = size / resized
    nearest = np.floor((first + np.arange(count) + 0.5) * step).astype(np.int64)
    box = first * step, min((first + count) * step, float(size))
    return _Axis(box, offset, np.minimum(nearest, size - 1))


def _resized(image: np.ndarray, rows: _Axis, columns: _Axis) -> Image.Image:
    """The box of the image, cubic: a crop of the whole resized image, as Pillow reads beyond the box where the kernel
    reaches. Within a level, that is, if both take the same axis first: Pillow begins with the cheaper one, of the box
    or of the whole, and rounds and clips in between. Where one side grows and the other shrinks up to 13 levels were
    seen in photographs, in one value of a thousand.
    """
    box = (columns.box[0], rows.box[0], columns.box[1], rows.box[1])
    size = len(columns.nearest), len(rows.nearest)
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=box)


def _exponential(limits: tuple[float, float], draw: float) -> float:
    low, high = math.log2(limits[0]), math.log2(limits[1])
    return 2.0 ** (low + (high - low) * draw)


class AugmentedData:
    """Augmented samples by (epoch, index), whose randomness is a function of (seed, epoch, index) alone."""

    def __init__(self, data: SegmentationData, augmentation: Augmentation, *, seed: int) -> None:
        self.data, self.augmentation, self.seed = data, augmentation, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        return self.augmentation(self.data[index], rng)
