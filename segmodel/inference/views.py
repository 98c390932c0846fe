"""Trained models on pictures: whole or in windows, at several scales, mirrored, several models together.

A *view* is one model's scores of one version of an image (resized, mirrored), on the grid of the guidance CRF (4 pixels
a cell): windows are blended on that grid before the guidance CRF, which then runs once over the whole version. Views
are interpolated straight to the image's pixels (half-pixel centres, clamped border) and fused there, a few rows at a
time, so that no array of all scores at full size exists.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segmodel.common.device import autocast, to_batch
from segmodel.common.options import option
from segmodel.model.network import Network
from segmodel.model.upsampling import area_average

Item = TypeVar("Item")
BLOCK = 2**20
"""Scores of a view interpolated at a time; also pixels of the image averaged into the guide at a time."""


@dataclass(frozen=True)
class InferenceConfig:
    """How a picture becomes labels; the defaults are one pass over the whole image."""

    window: tuple[int, int] | None = option(
        None, "height,width of a window that slides over the image, rounded up to the model's stride (none: whole)"
    )
    overlap: float = option(0.25, "share of the window that neighbouring windows have in common, at least")
    scales: tuple[float, ...] = option((1.0,), "the image is seen at each of these scales", "Table 3; code: 0.7,1,1.2")
    mirror: bool = option(False, "and mirrored, at each scale", "authors' code")
    fusion: Literal["mean", "max_mean"] = option(
        "mean", "of scales, mirrors and models: mean of the probabilities, or (max + mean)/2 of the scores (code)"
    )
    batch_size: int = option(1, "images of one size, or windows, in one pass")

    def __post_init__(self) -> None:
        if self.window is not None and min(self.window) < 1:
            raise ValueError(f"window: expected sides of at least 1, got {self.window}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap: expected at least 0 and less than 1, got {self.overlap}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales: expected numbers above 0, got {self.scales}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")


def resize(images: np.ndarray, scale: float) -> np.ndarray:
    """Images ``(N, H, W, 3)`` with both sides times ``scale``, rounded half up, at least 1; cubic as in training."""
    height, width = (max(1, int(scale * side + 0.5)) for side in images.shape[1:3])
    if (height, width) == images.shape[1:3]:
        return images
    pictures = (Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC) for image in images)
    return np.stack([np.array(picture) for picture in pictures])


def window_places(side: int, window: int, overlap: float, stride: int) -> list[tuple[int, int]]:
    """(first, end) of the windows along an axis: starts are multiples of the stride, and the last ends at the side.

    Windows are rounded up to the stride, the last one is cut at the border.
    """
    window = -(-window // stride) * stride
    step = max(stride, int(window * (1 - overlap)) // stride * stride)
    count = max(0, -(-(side - window) // step)) + 1
    last = max(0, -(-(side - window) // stride) * stride)
    return [(first, min(first + window, side)) for first in (min(index * step, last) for index in range(count))]


def window_weight(cells: int, taper: int) -> Tensor:
    """Weights along a window's axis: they rise linearly over ``taper`` cells from either end to 1."""
    index = torch.arange(cells)
    return ((torch.minimum(index, cells - 1 - index) + 0.5) / max(taper, 0.5)).clamp(max=1)


def coarse_scores(
    model: Network, images: np.ndarray, *, config: InferenceConfig, dtype: torch.dtype | None = None
) -> Tensor:
    """Scores before the guidance CRF ``(N, C, ceil(H / g), ceil(W / g))`` of images ``(N, H, W, 3)``.

    Windows start at multiples of the model's stride, so that a window's cells are cells of the image; where they
    overlap, their scores are averaged with weights that fall to the window's edges.
    """
    device, stride, g = next(model.parameters()).device, model.config.output_stride, model.head.guidance_stride
    height, width = images.shape[1:3]

    def scores(batch: np.ndarray) -> Tensor:
        with autocast(device, dtype):
            return model.head.coarse(model.features(to_batch(batch, device)), (batch.shape[1], batch.shape[2]))

    window = config.window or (height, width)
    rows, columns = (
        window_places(side, part, config.overlap, stride) for side, part in zip((height, width), window, strict=True)
    )
    if len(rows) == len(columns) == 1:
        return scores(images)
    total = torch.zeros(len(images), model.num_classes, -(-height // g), -(-width // g), device=device)
    weights = torch.zeros_like(total[:1, :1])
    taper = [int(side * config.overlap) // g for side in window]
    sized = sorted(itertools.product(rows, columns), key=lambda box: (box[0][1] - box[0][0], box[1][1] - box[1][0]))
    for _, boxes in itertools.groupby(sized, key=lambda box: (box[0][1] - box[0][0], box[1][1] - box[1][0])):
        for chunk in _chunks([(n, box) for box in boxes for n in range(len(images))], config.batch_size):
            found = scores(np.stack([images[n, y[0] : y[1], x[0] : x[1]] for n, (y, x) in chunk]))
            weight = torch.outer(*(window_weight(*pair) for pair in zip(found.shape[2:], taper, strict=True))).to(
                device
            )
            for part, (n, (y, x)) in zip(found, chunk, strict=True):
                place = np.s_[..., y[0] // g : -(-y[1] // g), x[0] // g : -(-x[1] // g)]
                total[n][place] += weight * part
                weights[place] += weight * (n == 0)
    return total / weights


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def guide(images: np.ndarray, stride: int, device: torch.device) -> Tensor:
    """The guidance CRF's picture ``(N, 3, ceil(H / g), ceil(W / g))``: means over blocks, a band of rows at a time."""
    band = max(1, BLOCK // (images.shape[0] * images.shape[2] * stride)) * stride
    bands = (images[:, first : first + band] for first in range(0, images.shape[1], band))
    return torch.cat([area_average(to_batch(part, device), stride) for part in bands], 2)


@dataclass(frozen=True)
class View:
    """One model's scores ``(N, C, h, w)`` of one version of the images, ``stride`` pixels a cell."""

    scores: Tensor
    size: tuple[int, int]  # of the version, in pixels
    stride: int
    mirrored: bool

    def rows(self, first: int, end: int, size: tuple[int, int]) -> Tensor:
        """Scores ``(N, C, end - first, W)`` at these rows of the image of that size."""
        scores = self.scores
        low, high, fraction = self._between(0, np.arange(first, end), size[0])
        scores = torch.lerp(scores.index_select(2, low), scores.index_select(2, high), fraction[:, None])
        scores = scores.permute(0, 3, 1, 2).contiguous()  # columns first: what is gathered then lies in one piece
        low, high, fraction = self._between(1, np.arange(size[1])[:: -1 if self.mirrored else 1], size[1])
        scores = torch.lerp(scores.index_select(1, low), scores.index_select(1, high), fraction[:, None, None])
        return scores.permute(0, 2, 3, 1).contiguous()

    def _between(self, axis: int, pixels: np.ndarray, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """The two cells between which each pixel's centre lies, and how far it is from the first to the second."""
        cells = self.scores.shape[2 + axis]
        position = ((pixels + 0.5) * (self.size[axis] / (side * self.stride)) - 0.5).clip(0, cells - 1)
        low = position.astype(np.int64)
        high = (low + 1).clip(max=cells - 1)
        device = self.scores.device
        fraction = torch.from_numpy(position - low).to(self.scores)
        return torch.from_numpy(low).to(device), torch.from_numpy(high).to(device), fraction


@dataclass(frozen=True)
class Prediction:
    """Views of N images of one size, fused when labels or probabilities are asked for."""

    views: tuple[View, ...]
    size: tuple[int, int]
    fusion: Literal["mean", "max_mean"]

    def labels(self) -> np.ndarray:
        """``(N, H, W)`` uint8: the label of the highest probability, the first of equals."""
        labels = np.empty((len(self.views[0].scores), *self.size), np.uint8)
        for first, block in self._blocks():
            found = block.max(1).indices  # several times faster than argmax on CPUs
            labels[:, first : first + block.shape[2]] = found.cpu().numpy()
        return labels

    def probabilities(self) -> np.ndarray:
        """``(N, C, H, W)`` float16."""
        found = np.empty((*self.views[0].scores.shape[:2], *self.size), np.float16)
        for first, block in self._blocks():
            found[:, :, first : first + block.shape[2]] = block.cpu().numpy()
        return found

    def image(self, index: int) -> "Prediction":
        """That of one image of the N."""
        views = (dataclasses.replace(view, scores=view.scores[index : index + 1]) for view in self.views)
        return dataclasses.replace(self, views=tuple(views))

    @torch.inference_mode()
    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The first row and probabilities ``(N, C, rows, W)`` of each block of rows."""
        images, classes = self.views[0].scores.shape[:2]
        step = max(1, BLOCK // (images * classes * self.size[1]))
        for first in range(0, self.size[0], step):
            end = min(first + step, self.size[0])
            scores = [view.rows(first, end, self.size) for view in self.views]
            if self.fusion == "mean":  # softmax of each alone: its roundings depend on the shape it is given
                yield first, torch.stack([found.softmax(1) for found in scores]).mean(0)
            else:
                stack = torch.stack(scores)
                yield first, ((stack.amax(0) + stack.mean(0)) / 2).softmax(1)


@torch.inference_mode()
def predict_images(
    models: Sequence[Network],
    images: np.ndarray,
    *,
    modes: Sequence[bool | None] = (None,),
    config: InferenceConfig | None = None,
    dtype: torch.dtype | None = None,
) -> list[Prediction]:
    """Predictions of images ``(N, H, W, 3)`` uint8 RGB, one for each ``guidance`` mode, from one backbone pass a view.

    ``modes``: False, True, or None for as each model is configured. ``dtype``: of the convolutions, see
    ``autocast_dtype``. The models share their classes; they are in evaluation mode.
    """
    config = config or InferenceConfig()
    views: list[list[View]] = [[] for _ in modes]
    for model, scale, mirrored in itertools.product(models, config.scales, (False, True)[: 1 + config.mirror]):
        version = resize(images, scale)[:, :, :: -1 if mirrored else 1]
        coarse = coarse_scores(model, version, config=config, dtype=dtype)
        for found, mode in zip(views, modes, strict=True):
            scores = coarse
            if model.head.guidance != "off" if mode is None else mode:
                scores = model.head.crf(coarse, guide(version, model.head.guidance_stride, coarse.device))
            size = (version.shape[1], version.shape[2])
            found.append(View(scores, size, model.head.guidance_stride, mirrored))
    size = (images.shape[1], images.shape[2])
    return [Prediction(tuple(found), size, config.fusion) for found in views]


def label_maps(
    model: Network, image: np.ndarray, *, modes: Sequence[bool | None], dtype: torch.dtype | None = None
) -> list[np.ndarray]:
    """Labels ``(H, W)`` uint8 of one image ``(H, W, 3)``, one for each ``guidance`` mode, from one backbone pass."""
    return [found.labels()[0] for found in predict_images([model], image[None], modes=modes, dtype=dtype)]


def same_size_batches(
    items: Iterable[Item], size: int, *, image: Callable[[Item], np.ndarray]
) -> Iterator[tuple[list[Item], np.ndarray]]:
    """Neighbouring items whose images have one size, at most ``size`` of them, and those images ``(N, H, W, 3)``."""

    def batch() -> tuple[list[Item], np.ndarray]:
        return group, np.stack([image(member) for member in group])

    group: list[Item] = []
    for item in items:
        if group and image(group[0]).shape != image(item).shape:
            yield batch()
            group = []
        group.append(item)
        if len(group) == size:  # now, not when the next item comes: what is done is kept if that one is broken
            yield batch()
            group = []
    if group:
        yield batch()
