"""Sharper boundaries for the output of any segmentation model: the guidance CRF on its scores (Sec. 5, 7.2)."""

import torch

from segmodel.inference.inputs import Array, as_tensor, describe, like, scores_and_pixels
from segmodel.inference.refinement import own_settings, refined
from segmodel.model.guidance_crf import GuidanceCRF


def refine(
    scores: Array,
    image: object,
    *,
    crf: GuidanceCRF | None = None,
    image_range: tuple[float, float] = (0, 255),
    **settings: float,
) -> Array:
    """Logits that follow the image's edges, at the image's size (Algorithm 1).

    The guidance CRF runs on blocks of ``stride`` pixels. Scores of the blocks' resolution are then enlarged, as in the
    paper. Any others are first interpolated bilinearly to the image's size, and what the CRF changes is added to them,
    so that detail of full-size scores is kept. Differentiable for tensors.

    Args:
        scores: logits, class first: ``(C, h, w)`` or ``(N, C, h, w)``, an array or a tensor, floating point. Two
            dimensions ``(h, w)`` are a binary mask: see ``refine_mask``.
        image: RGB. Arrays are channels last, ``(H, W, 3)`` or ``(N, H, W, 3)``; tensors channels first, ``(3, H, W)``
            or ``(N, 3, H, W)``; grey: ``(H, W)`` or one channel. Or a PIL image, or the path of one.
        crf: a trained one, which has its own settings; beside it, only ``stride`` may be given.
        image_range: the image's black and white.
        settings: the fields of ``Refinement``; those not given follow from the scores.

    Returns:
        Logits ``(C, H, W)`` or ``(N, C, H, W)``, an array or a tensor as the scores are, and of their dtype.

    Raises:
        ValueError: on a shape, dtype, value range or setting that does not fit.
    """
    if getattr(scores, "ndim", None) == 2:
        return refine_mask(scores, image, crf=crf, image_range=image_range, **settings)
    own = own_settings(settings, crf)
    batch, pixels = scores_and_pixels(scores, image, image_range)
    result = refined(batch, pixels, own, crf, image_range)
    return like(result if scores.ndim == 4 else result[0], scores)


def refine_mask(
    mask: Array,
    image: object,
    *,
    crf: GuidanceCRF | None = None,
    confidence: float = 0.7,
    image_range: tuple[float, float] = (0, 255),
    **settings: float,
) -> Array:
    """A binary mask that follows the image's edges: ``refine`` for two classes.

    Args:
        mask: ``(H, W)``, ``(N, H, W)`` or ``(N, 1, H, W)``: probabilities in 0..1, or hard: only 0 and 1 in any dtype,
            or whole numbers 0 and 255. Probabilities near 0 and 1 hardly change.
        confidence: probability of a hard mask where it is set, more than 0.5 and less than 1; the higher, the less
            the mask changes.
        image, crf, image_range, settings: see ``refine``; a crf has two classes.

    Returns:
        The mask at the image's size, of the same type and dtype: probabilities stay probabilities, hard masks hard.

    Raises:
        ValueError: as ``refine``.
    """
    tensor = as_tensor("mask", mask)
    shape = tensor.shape
    if tensor.ndim not in (2, 3, 4) or (tensor.ndim == 4 and shape[1] != 1) or 0 in shape:
        raise ValueError(f"mask: expected (H, W), (N, H, W) or (N, 1, H, W), got {describe(mask)}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence: expected more than 0.5 and less than 1, got {confidence!r}")
    low, high = (value.item() for value in tensor.aminmax())
    binary = not tensor.requires_grad and bool(((tensor == 0) | (tensor == 1)).all())
    hard = binary or not tensor.is_floating_point()
    top = (255 if high > 1 else 1) if hard else 1.0
    values = set(tensor.unique().tolist()) if hard else set()
    if not values <= {0, top} or not 0 <= low <= high <= top:
        raise ValueError(f"mask: expected probabilities, or 0 and 1 (or 255) alone, got values {low:g} to {high:g}")
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32)) / top
    edge = 1 - confidence if hard else 1e-4
    probability = wide.clamp(edge, 1 - edge).reshape(-1, 1, *shape[-2:])
    scores = torch.cat([torch.log1p(-probability), torch.log(probability)], dim=1)
    refined = refine(scores, image, crf=crf, image_range=image_range, **settings).softmax(1)[:, 1]
    refined = refined.reshape(*shape[:-2], *refined.shape[-2:])
    return like((refined >= 0.5) * top if hard else refined, mask)
