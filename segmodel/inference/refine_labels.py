"""Label maps of any origin whose boundaries follow the image: ``refine`` where there are no scores."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from segmodel.common.labels import IGNORE
from segmodel.inference.guides import Ranges, image_tensor
from segmodel.inference.inputs import Array, Layout, check_layout, class_first, in_lists, like
from segmodel.inference.label_pictures import LabelPicture
from segmodel.inference.refine import HARD
from segmodel.inference.refinement import own_settings, refining_crf
from segmodel.inference.tensors import as_tensor, describe
from segmodel.model.untrained_crf import Refinement
from segmodel.model.upsampling import area_average, enlarge

NEAR = 8
"""Blocks around a block within which a class must occur to be taken for possible there."""
FAR = -10.0
"""Score of a class that does not."""
FILLED = 0.02
"""Confidence in what is filled in, as a share of that in what was there: it decides where no message comes from."""


@in_lists
def refine_labels(
    labels: Array,
    image: object,
    *,
    ignore: int | None = IGNORE,
    fill: bool = False,
    confidence: float = 0.7,
    layout: Layout | None = None,
    image_range: Ranges | None = None,
    image_layout: Layout | None = None,
    **settings: float,
) -> Array:
    """A label map that follows the image's edges, at the image's size; only the classes in it are computed.

    A class can only move into pixels near those that have it (``NEAR`` blocks), so the others of a map with many
    classes do not blur the choice.

    Args:
        labels: class numbers ``(H, W)`` or ``(N, H, W)``, whole numbers of any value: an array or a tensor. Or a PIL
            image or the path of one (numbers, or a colour a class): then a PIL image of the same kind is the result.
            They may be smaller than the image. Lists as for ``refine``.
        image: see ``refine``; or one image beside N label maps.
        ignore: the number of pixels without a class (None: there are none, as in a picture of colours).
        fill: whether those get a class; otherwise they stay as they are. Where nothing has a class, they stay.
        confidence: see ``refine_mask``.
        layout, image_range, image_layout, settings: see ``refine``; settings that are not given are
            ``segmodel.inference.refine.HARD``.

    Returns:
        Labels ``(H, W)`` or ``(N, H, W)`` of the same type and dtype.

    Raises:
        ValueError: on a shape, dtype, value range or setting that does not fit.
    """
    if isinstance(labels, Image.Image | str | Path):
        picture = LabelPicture.of(labels)
        ignore = None if picture.colours else ignore
        return picture.drawn(refine_labels(picture.values, image, ignore=ignore, fill=fill, confidence=confidence,
                                           image_range=image_range, image_layout=image_layout, **settings))  # fmt: skip
    tensor = class_first(as_tensor("labels", labels), layout)
    if tensor.ndim not in (2, 3) or tensor.is_floating_point() or 0 in tensor.shape:
        hint = "; refine takes scores, refine_mask probabilities" if tensor.is_floating_point() else ""
        raise ValueError(f"labels: expected whole numbers (H, W) or (N, H, W), got {describe(labels)}{hint}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence: expected more than 0.5 and less than 1, got {confidence!r}")
    own, batch = own_settings({**HARD, **settings}, None), tensor if tensor.ndim == 3 else tensor[None]
    pixels = image_tensor(image, image_range=image_range, layout=image_layout, device=tensor.device)
    if tensor.ndim == 3 and layout is None:
        check_layout("labels", labels, tensor.shape, pixels.shape[2:], least=1)
    if len(pixels) not in (1, len(batch)):
        raise ValueError(f"image: expected one, or as many as labels, {len(batch)}, got {len(pixels)}")
    strength = math.log(confidence / (1 - confidence))
    result = torch.stack([
        _refined(plane, pixels[index % len(pixels)][None], own, ignore, fill, strength)
        for index, plane in enumerate(batch)
    ])  # fmt: skip
    return like(result if tensor.ndim == 3 else result[0], labels, layout)


def _refined(labels: Tensor, image: Tensor, own: Refinement, ignore: int | None, fill: bool, strength: float) -> Tensor:
    """(h, w) and 1 B H W -> (H, W). All classes are held on the grid of blocks; at full size one after the other."""
    height, width = size = image.shape[-2:]
    labels = labels.long()
    ignored = torch.zeros_like(labels, dtype=torch.bool) if ignore is None else labels == ignore
    present = labels[~ignored].unique()
    index = torch.zeros(size, dtype=torch.long, device=labels.device)
    if len(present) > 1:
        found = own.resolved(image[:, :1], size)  # from no scores: all settings are given
        shares = torch.cat([area_average(_plane(labels == value, size), found.stride) for value in present], 1)
        known = area_average(_plane(~ignored, size), found.stride)
        unary = strength * _possible(shares, known)
        phi = refining_crf(found, None, (0, 255))(unary, area_average(image.float(), found.stride))
        change = phi - strength * shares
        best = torch.full(size, -math.inf, device=labels.device)
        for number, value in enumerate(present):
            moved = enlarge(change[:, number : number + 1], found.stride)[0, 0, :height, :width]
            score = (strength * _plane(labels == value, size)[0, 0]).add_(moved)
            index.masked_fill_(score > best, number)
            best = torch.maximum(best, score)
    result = present[index] if len(present) else torch.full_like(index, ignore or 0)
    if fill or ignore is None:
        return result
    return result.masked_fill_(_plane(ignored, size, mode="nearest-exact")[0, 0] > 0, ignore)


def _plane(where: Tensor, size: Sequence[int], **options: Any) -> Tensor:
    """1 or 0 for true or false (h, w), interpolated to 1 1 H W."""
    plane = where[None, None].float()
    if where.shape == torch.Size(size):
        return plane
    options = options or {"mode": "bilinear", "align_corners": False, "antialias": where.shape[0] > size[0]}
    return functional.interpolate(plane, (size[0], size[1]), **options)


def _possible(shares: Tensor, known: Tensor) -> Tensor:
    """Shares of the classes in the blocks, 1 K h w, where nothing is known filled in, as scores."""
    filled = _filled(shares, known)
    near = filled
    side = 2 * NEAR + 1
    for window, padding in (((side, 1), (NEAR, 0)), ((1, side), (0, NEAR))):
        near = functional.max_pool2d(near, window, stride=1, padding=padding)
    scores = torch.where(known > 0, shares / known.clamp(min=1e-6), FILLED * filled)
    return torch.where(near > 0, scores, FAR)


def _filled(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums 1 K h w over their weights 1 1 h w; where those are 0, the means of ever larger surroundings."""
    means = values / weight.clamp(min=1e-6)
    if bool((weight > 0).all()) or weight.shape[-2:] == (1, 1):
        return means
    surroundings = _filled(area_average(values, 2), area_average(weight, 2))
    return torch.where(weight > 0, means, enlarge(surroundings, 2)[..., : values.shape[2], : values.shape[3]])
