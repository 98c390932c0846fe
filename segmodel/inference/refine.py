"""Sharper boundaries for the output of any segmentation model: the guidance CRF on its scores (Sec. 5, 7.2)."""

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from segmodel.inference.guides import image_tensor
from segmodel.inference.inputs import (
    Array,
    Layout,
    Ranges,
    check_layout,
    class_first,
    in_lists,
    like,
    scores_and_pixels,
)
from segmodel.inference.label_pictures import LabelPicture
from segmodel.inference.refinement import own_settings, refined
from segmodel.inference.tensors import as_tensor, describe
from segmodel.inference.tiles import refine_tiles
from segmodel.model.guidance_crf import GuidanceCRF

HARD = {"stride": 4, "radius": 8, "weight": 2.0, "balance": 0.5, "iterations": 3}
"""Settings for hard masks and label maps, which do not say where they are sure: larger weights mend coarse ones more
and spoil those that are good. VOC's labels, in mIoU: true ones 99.2, of every 8th pixel 92.9 -> 93.0, of every 16th
86.7 -> 87.5; with weight 4 and balance 0.25 they come to 93.8, 91.1 and 88.8."""
TOGETHER = 16
"""Masks that are refined in one pass: their scores are in memory at the image's size."""


@in_lists
def refine(
    scores: Array,
    image: object,
    *,
    crf: GuidanceCRF | None = None,
    layout: Layout | None = None,
    image_range: Ranges | None = None,
    image_layout: Layout | None = None,
    max_memory: int | None = None,
    **settings: float,
) -> Array:
    """Logits that follow the image's edges, at the image's size (Algorithm 1).

    The guidance CRF runs on blocks of ``stride`` pixels. Scores of the blocks' resolution are then enlarged, as in the
    paper. Any others are first interpolated bilinearly to the image's size, and what the CRF changes is added to them,
    so that detail of full-size scores is kept. Differentiable for tensors.

    Args:
        scores: logits, class first: ``(C, h, w)`` or ``(N, C, h, w)``, floating point: a tensor, an array, or what
            NumPy takes for one. Two dimensions ``(h, w)``, a PIL image or a path are a binary mask: see
            ``refine_mask``. Or a list of them, beside a list of images of any sizes: then so is the result.
        image: arrays are channels last, ``(H, W, 3)``, ``(H, W)`` or ``(N, H, W, 3)``; tensors channels first,
            ``(3, H, W)`` or ``(N, 3, H, W)``; of 1 to 16 bands instead of 3. Or a PIL image, or the path of one.
        crf: a trained one, which has its own settings; beside it, only ``stride`` may be given.
        layout: "CHW" or "HWC", of the scores and of the result. Without it class first is expected, and scores that
            beside this image look class last are refused.
        image_range: the image's black and white, or a pair for each band; without it 0..255, and an image of 16 bits,
            or of values that look like 0..1, is refused.
        image_layout: "CHW" or "HWC", of the image, if it is not as above.
        max_memory: bytes for all but the result: arrays of one picture, also memory-mapped, are then refined tile by
            tile (see ``tiles.refine_tiles``, which writes files as well), without a gradient.
        settings: the fields of ``Refinement``; those not given follow from the scores.

    Returns:
        Logits ``(C, H, W)`` or ``(N, C, H, W)``, an array or a tensor as the scores are, and of their dtype.

    Raises:
        ValueError: on a shape, dtype, value range or setting that does not fit.
    """
    if isinstance(scores, Image.Image | str | Path) or getattr(scores, "ndim", None) == 2:
        return refine_mask(scores, image, crf=crf, image_range=image_range, image_layout=image_layout,
                           **settings)  # type: ignore[arg-type]  # fmt: skip
    own = own_settings(settings, crf)
    if max_memory is not None:
        if layout == "HWC" or image_layout == "CHW":  # they are read by windows, as they lie
            raise ValueError("layout, image_layout: expected class-first scores and a bands-last image with max_memory")
        return refine_tiles(scores, image, own=own, crf=crf, labels=False, image_range=image_range,
                            max_memory=max_memory)  # type: ignore[return-value]  # fmt: skip
    batch, pixels = scores_and_pixels(scores, image, image_range, layout=layout, image_layout=image_layout)
    result = refined(batch, pixels, own, crf, (0, 255))
    return like(result if scores.ndim == 4 else result[0], scores, layout)


@in_lists
def refine_mask(
    mask: Array,
    image: object,
    *,
    crf: GuidanceCRF | None = None,
    confidence: float = 0.7,
    logits: bool = False,
    layout: Layout | None = None,
    image_range: Ranges | None = None,
    image_layout: Layout | None = None,
    **settings: float,
) -> Array:
    """A binary mask that follows the image's edges: ``refine`` for two classes.

    Args:
        mask: ``(H, W)``, ``(N, H, W)`` or ``(N, 1, H, W)``: probabilities in 0..1, or hard: only 0 and 1 in any dtype,
            or whole numbers 0 and 255. Probabilities near 0 and 1 hardly change. Or a PIL image or the path of one,
            with 0 and 1, or 0 and 255, and a PIL image is the result. Lists as for ``refine``.
        confidence: probability of a hard mask where it is set, more than 0.5 and less than 1; the higher, the less
            the mask changes.
        logits: whether the mask is logits (of the sigmoid), such as SAM's; then so is the result.
        image: see ``refine``; or one image beside N masks, each of which is refined for itself.
        crf, layout, image_range, image_layout, settings: see ``refine``; a crf has two classes. For hard masks those
            that are not given are ``HARD``.

    Returns:
        The mask at the image's size, of the same type and dtype: probabilities stay probabilities, hard masks hard.

    Raises:
        ValueError: as ``refine``.
    """
    options = {"crf": crf, "confidence": confidence, "image_range": image_range, "image_layout": image_layout}
    if isinstance(mask, Image.Image | str | Path):
        picture = LabelPicture.of(mask)
        return picture.drawn(refine_mask(picture.values, image, **options, **settings))
    tensor = class_first(as_tensor("mask", mask), layout)
    shape = tensor.shape
    if tensor.ndim not in (2, 3, 4) or (tensor.ndim == 4 and shape[1] != 1) or 0 in shape:
        raise ValueError(f"mask: expected (H, W), (N, H, W) or (N, 1, H, W), got {describe(mask)}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence: expected more than 0.5 and less than 1, got {confidence!r}")
    top = 0 if logits else _top(tensor)
    odds = _logits(tensor) if logits else _log_odds(tensor, top, confidence)
    odds = odds.reshape(-1, 1, *shape[-2:])
    scores = torch.cat([-odds / 2, odds / 2], dim=1)
    pixels = image_tensor(image, image_range=image_range, layout=image_layout, device=tensor.device)
    if tensor.ndim == 3 and layout is None:
        check_layout("mask", mask, shape, pixels.shape[2:], least=1)
    if len(pixels) not in (1, len(scores)):
        raise ValueError(f"image: expected one, or as many as masks, {len(scores)}, got {len(pixels)}")
    own = own_settings({**HARD, **settings} if top and crf is None else settings, crf)
    parts = [refined(part, pixels if len(pixels) == 1 else pixels[first : first + TOGETHER], own, crf, (0, 255))
             for first, part in zip(range(0, len(scores), TOGETHER), scores.split(TOGETHER), strict=True)]  # fmt: skip
    result = torch.cat([part[:, 1] - part[:, 0] for part in parts]).reshape(*shape[:-2], *pixels.shape[2:])
    return like(result if logits else (result >= 0) * top if top else result.sigmoid(), mask, layout)


def _logits(tensor: Tensor) -> Tensor:
    """The logits, checked."""
    if not tensor.is_floating_point() or not bool(tensor.detach().isfinite().all()):
        raise ValueError("mask: expected finite floating point logits")
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _top(tensor: Tensor) -> int:
    """The value where a hard mask is set, 1 or 255; 0 for probabilities.

    Raises:
        ValueError: the mask is neither.
    """
    low, high = (value.item() for value in tensor.detach().aminmax())
    binary = not tensor.requires_grad and bool(((tensor == 0) | (tensor == 1)).all())
    hard = binary or not tensor.is_floating_point()
    top = 255 if hard and high > 1 else 1
    if (hard and not bool(((tensor == 0) | (tensor == top)).all())) or not 0 <= low <= high <= top:
        hint = "give logits=True for logits" if tensor.is_floating_point() else "refine_labels takes class numbers"
        raise ValueError(f"mask: expected probabilities, or 0 and 1 (or 255) alone, got values {low:g} to {high:g}; "
                         f"{hint}")  # fmt: skip
    return top if hard else 0


def _log_odds(tensor: Tensor, top: int, confidence: float) -> Tensor:
    """Probabilities (``top`` 0) or a hard mask as logits of the sigmoid."""
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if top:
        return (2 * wide / top - 1) * math.log(confidence / (1 - confidence))
    return wide.clamp(1e-4, 1 - 1e-4).logit()
