"""Trained models on images: whole or in windows, at several scales, mirrored, several models together.

A *view* is one model's scores of one version of an image (resized, mirrored), on the grid of the guidance CRF (4 pixels
a cell): windows are blended on that grid before the guidance CRF, which then runs once over the whole version. Views
are interpolated straight to the image's pixels (half-pixel centres, clamped border) and fused there, a few rows at a
time, so that no array of all scores at full size exists. Several kinds of guidance share one pass of the backbone.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from segmodel.common.device import autocast, evaluating, to_batch
from segmodel.common.errors import NotFiniteError, UserError
from segmodel.common.options import Section, option
from segmodel.model.finite import check_scores, fault
from segmodel.model.network import Network
from segmodel.model.upsampling import area_average, enlarge

Item = TypeVar("Item")
BLOCK = 2**20
"""Scores of a view interpolated at a time; also pixels of the image averaged into the guide at a time."""
Crf = Callable[[Tensor, Tensor], Tensor]
"""Scores ``(N, C, h, w)`` and the image's means over the same cells ``(N, 3, h, w)``, 0..255 -> scores, same shape."""


@dataclass(frozen=True)
class AtFullSize:
    """A CRF that takes the scores enlarged to the image's size, and the image itself."""

    crf: Crf


Guidance = Crf | AtFullSize | bool | None
"""None: as the model is configured. True: its own guidance CRF. False: none. Or a CRF of one's own."""
CONFIGURED: Mapping[str, Guidance] = {"model": None}


@dataclass(frozen=True)
class InferenceConfig(Section):
    """How an image becomes labels; the defaults are one pass over the whole image."""

    window: tuple[int, int] | None = option(
        None,
        "height,width of a sliding window, rounded up to the model's stride (none: the whole image)",
        at_least=1,
        at_most=10**6,
    )
    overlap: float = option(0.25, "least share of the window that neighbouring windows share", at_least=0, below=1)
    scales: tuple[float, ...] = option(
        (1.0,), "the image is seen at each of these scales", "Table 3; code: 0.7,1,1.2", above=0, at_most=64
    )
    mirror: bool = option(False, "and mirrored, at each scale", "authors' code")
    fusion: Literal["mean", "max_mean"] = option(
        "mean", "of scales, mirrors and models: mean of the probabilities, or (max + mean)/2 of the scores (code)"
    )
    batch_size: int = option(1, "images of one size, or windows, in one pass", at_least=1, at_most=65536)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales:
            raise UserError("scales: expected at least one, got none")


def resize(images: np.ndarray, scale: float) -> np.ndarray:
    """Images ``(N, H, W, 3)`` with both sides times ``scale``, rounded half up, at least 1; bicubic as in training."""
    height, width = (max(1, int(scale * side + 0.5)) for side in images.shape[1:3])
    if (height, width) == images.shape[1:3]:
        return images
    pictures = (Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC) for image in images)
    return np.stack([np.array(picture) for picture in pictures])


def window_places(side: int, window: int, overlap: float, stride: int) -> list[tuple[int, int]]:
    """(first, end) of each window along an axis of ``side`` pixels.

    Windows are rounded up to the stride and start at multiples of it; the last one is cut at the border.
    """
    window = -(-window // stride) * stride
    step = max(stride, int(window * (1 - overlap)) // stride * stride)
    count = max(0, -(-(side - window) // step)) + 1
    last = max(0, -(-(side - window) // stride) * stride)
    return [(first, min(first + window, side)) for first in (min(index * step, last) for index in range(count))]


def window_weight(cells: int, taper: int) -> Tensor:
    """Weights ``(cells,)`` along a window's axis, which rise linearly to 1 over ``taper`` cells from either end."""
    index = torch.arange(cells)
    return ((torch.minimum(index, cells - 1 - index) + 0.5) / max(taper, 0.5)).clamp(max=1)


def coarse_scores(
    model: Network, images: np.ndarray, *, config: InferenceConfig, dtype: torch.dtype | None = None
) -> Tensor:
    """Scores before the guidance CRF ``(N, C, ceil(H / g), ceil(W / g))`` of images ``(N, H, W, 3)``.

    Windows start at multiples of the model's stride, so that their cells are cells of the image; where they overlap,
    their scores are averaged with weights that fall towards the window's edges.
    """
    device, stride, g = next(model.parameters()).device, model.config.output_stride, model.head.guidance_stride
    height, width = images.shape[1:3]

    def computed(batch: np.ndarray) -> Tensor:
        with autocast(device, dtype):
            return model.head.coarse(model.features(to_batch(batch, device)), (batch.shape[1], batch.shape[2]))

    def scores(batch: np.ndarray) -> Tensor:
        return check_scores(computed(batch), model, partial(computed, batch))

    window = config.window or (height, width)
    rows, columns = (
        window_places(side, part, config.overlap, stride) for side, part in zip((height, width), window, strict=True)
    )
    if len(rows) == len(columns) == 1:
        return scores(images)
    total = torch.zeros(len(images), model.num_classes, -(-height // g), -(-width // g), device=device)
    weights = torch.zeros_like(total[:1, :1])
    taper = [int(side * config.overlap) // g for side in window]
    boxes = [(n, y, x) for y, x in itertools.product(rows, columns) for n in range(len(images))]
    boxes.sort(key=lambda box: (box[1][1] - box[1][0], box[2][1] - box[2][0]))
    for batch, pixels in same_size_batches(
        boxes, config.batch_size, image=lambda box: images[box[0], slice(*box[1]), slice(*box[2])]
    ):
        found = scores(pixels)
        edges = (window_weight(cells, part) for cells, part in zip(found.shape[2:], taper, strict=True))
        weight = torch.outer(*edges).to(device)
        for part, (n, y, x) in zip(found, batch, strict=True):
            place = np.s_[..., y[0] // g : -(-y[1] // g), x[0] // g : -(-x[1] // g)]
            total[n][place] += weight * part
            weights[place] += weight * (n == 0)
    return total / weights


def guide(images: np.ndarray, stride: int, device: torch.device) -> Tensor:
    """The guidance CRF's image ``(N, 3, ceil(H / g), ceil(W / g))``: means over blocks, a band of rows at a time."""
    band = max(1, BLOCK // (images.shape[0] * images.shape[2] * stride)) * stride
    bands = (images[:, first : first + band] for first in range(0, images.shape[1], band))
    return torch.cat([area_average(to_batch(part, device), stride) for part in bands], 2)


@dataclass(frozen=True)
class View:
    """One model's scores ``(N, C, h, w)`` of one version of N images, with cells of ``stride`` pixels."""

    scores: Tensor
    size: tuple[int, int]  # of the version, in pixels
    stride: int
    mirrored: bool

    def rows(self, first: int, end: int, size: tuple[int, int]) -> Tensor:
        """Scores ``(N, C, end - first, W)`` of the rows from ``first`` to ``end`` of an image of ``size`` (H, W)."""
        scores = self.scores
        low, high, fraction = self._between(0, np.arange(first, end), size[0])
        scores = torch.lerp(scores.index_select(2, low), scores.index_select(2, high), fraction[:, None])
        scores = scores.permute(0, 3, 1, 2).contiguous()  # columns first: what is gathered then lies in one piece
        low, high, fraction = self._between(1, np.arange(size[1])[:: -1 if self.mirrored else 1], size[1])
        scores = torch.lerp(scores.index_select(1, low), scores.index_select(1, high), fraction[:, None, None])
        return scores.permute(0, 2, 3, 1).contiguous()

    def _between(self, axis: int, pixels: np.ndarray, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """The two cells between which each pixel's centre lies, and its distance from the first, as a share."""
        cells = self.scores.shape[2 + axis]
        position = ((pixels + 0.5) * (self.size[axis] / (side * self.stride)) - 0.5).clip(0, cells - 1)
        low = position.astype(np.int64)
        high = (low + 1).clip(max=cells - 1)
        device = self.scores.device
        fraction = torch.from_numpy(position - low).to(self.scores)
        return torch.from_numpy(low).to(device), torch.from_numpy(high).to(device), fraction


@dataclass
class Prediction:
    """Views of N images of one size, fused when labels or probabilities are asked for."""

    size: tuple[int, int]
    fusion: Literal["mean", "max_mean"]
    views: list[View] = field(default_factory=list)
    seconds: float = 0.0  # spent on guidance, without the backbone

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
        """The prediction of one of the N images."""
        views = [replace(view, scores=view.scores[index : index + 1]) for view in self.views]
        return replace(self, views=views)

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
    guidance: Mapping[str, Guidance | Sequence[Guidance]] = CONFIGURED,
    config: InferenceConfig | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Prediction]:
    """Predictions of images ``(N, H, W, 3)`` uint8 RGB by title of the guidance, from one backbone pass a view.

    Args:
        models: of the same classes, in evaluation mode; their results are fused.
        guidance: title -> how the scores are refined, one for all models or one for each.
        dtype: of the convolutions, see ``autocast_dtype``.
    """
    config = config or InferenceConfig()
    found = {title: Prediction((images.shape[1], images.shape[2]), config.fusion) for title in guidance}
    mirrors = (False, True)[: 1 + config.mirror]
    for (number, model), scale, mirrored in itertools.product(enumerate(models), config.scales, mirrors):
        version = resize(images, scale)[:, :, :: -1 if mirrored else 1]
        coarse = coarse_scores(model, version, config=config, dtype=dtype)
        for title, way in guidance.items():
            start = _now(coarse.device)
            own = way[number] if isinstance(way, Sequence) else way
            found[title].views.append(_view(model, version, coarse, own, mirrored))
            found[title].seconds += _now(coarse.device) - start
    return found


def _view(model: Network, version: np.ndarray, scores: Tensor, way: Guidance, mirrored: bool) -> View:
    stride, size = model.head.guidance_stride, (version.shape[1], version.shape[2])
    if isinstance(way, AtFullSize):
        scores, stride, way = enlarge(scores, stride)[..., : size[0], : size[1]], 1, way.crf
    crf = model.head.guided(way) if way is None or isinstance(way, bool) else way
    if crf is not None:
        coarse, pixels = scores, guide(version, stride, scores.device)
        part = crf if isinstance(crf, nn.Module) and crf is not model.head.crf else model
        scores = check_scores(crf(coarse, pixels), part, lambda: crf(coarse, pixels))
    return View(scores, size, stride, mirrored)


def _now(device: torch.device) -> float:
    """Seconds on a clock, read when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def label_maps(
    model: Network,
    image: np.ndarray,
    *,
    guidance: Mapping[str, Guidance] = CONFIGURED,
    dtype: torch.dtype | None = None,
) -> dict[str, np.ndarray]:
    """Labels ``(H, W)`` uint8 of one image ``(H, W, 3)`` by title of the guidance, from one backbone pass."""
    found = predict_images([model], image[None], guidance=guidance, dtype=dtype)
    return {title: prediction.labels()[0] for title, prediction in found.items()}


def check_predicts(model: Network, dtype: torch.dtype | None = None) -> None:
    """Takes one small picture through a model, in evaluation mode; it and each of its parts stay in their own.

    Raises:
        NotFiniteError: a tensor of it, or the scores, are NaN or infinite, or a variance is negative.
    """
    if found := fault(model.state_dict()):
        raise NotFiniteError(f"the model cannot predict: {found}")
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    with evaluating(model):
        predict_images([model], noise, guidance={"on": True}, dtype=dtype)


def same_size_batches(
    items: Iterable[Item], size: int, *, image: Callable[[Item], np.ndarray]
) -> Iterator[tuple[list[Item], np.ndarray]]:
    """Batches of at most ``size`` neighbouring items whose images have one size, with those images ``(N, H, W, 3)``."""

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
