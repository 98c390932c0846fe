"""Sharper boundaries for the output of any segmentation model: the guidance CRF on its scores (Sec. 5, 7.2)."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from segmodel.common.errors import UserError, read_text
from segmodel.common.options import Section, check_values, option
from segmodel.data.images import picture_pixels, read_image
from segmodel.inference.views import Crf
from segmodel.kernels import guidance_crf
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.guided_filter import check_range, guide_from_image
from segmodel.model.upsampling import area_average, enlarge

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class Refinement(Section):
    """Settings of an untrained refinement; the defaults are the paper's."""

    stride: int = option(4, "the CRF works on blocks of stride x stride pixels; 1: full size", "Sec. 5", at_least=1)
    radius: int = option(3, "radius of the guided filter's window, in blocks", "authors' code", at_least=0)
    eps: float = option(1.0, "epsilon of Eq. 12, for colours in 0..255", "Sec. 5", above=0)
    weight: float = option(2.0, "lambda of Algorithm 1", "authors' code", at_least=0)
    iterations: int = option(3, "iterations of Algorithm 1", "Sec. 5", at_least=0)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
        super().__post_init__()


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
        settings: the fields of ``Refinement``: ``stride`` (4; 1: full size), ``radius`` (3), ``eps`` (1.0), ``weight``
            (2.0), ``iterations`` (3).

    Returns:
        Logits ``(C, H, W)`` or ``(N, C, H, W)``, an array or a tensor as the scores are, and of their dtype.

    Raises:
        ValueError: on a shape, dtype, value range or setting that does not fit.
    """
    if getattr(scores, "ndim", None) == 2:
        return refine_mask(scores, image, crf=crf, image_range=image_range, **settings)
    own = own_settings(settings, crf)
    batch, pixels = scores_and_pixels(scores, image, image_range)
    refined = _refined(batch, pixels, own.stride, _crf(own, crf, image_range))
    return _like(refined if scores.ndim == 4 else refined[0], scores)


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
    return _like((refined >= 0.5) * top if hard else refined, mask)


def own_settings(settings: dict[str, float], crf: GuidanceCRF | None) -> Refinement:
    """The settings, checked; beside a trained crf only the stride may be given."""
    known = [item.name for item in fields(Refinement)]
    allowed = known if crf is None else ["stride"]
    for name in settings:
        if name not in allowed:
            why = " beside a crf, which has its own" if name in known else ""
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}{why}")
    return Refinement(**settings)  # type: ignore[arg-type]


def scores_and_pixels(
    scores: object, image: object, image_range: tuple[float, float] = (0, 255)
) -> tuple[Tensor, Tensor]:
    """Tensors ``(N, C, h, w)`` and ``(N, 3 or 1, H, W)`` of what ``refine`` takes.

    Raises:
        ValueError: anything else, also probabilities: they would be refined far too strongly.
    """
    tensor = as_tensor("scores", scores)
    if tensor.ndim not in (3, 4) or not tensor.is_floating_point() or 0 in tensor.shape:
        raise ValueError(f"scores: expected floating point (C, h, w) or (N, C, h, w), got {describe(scores)}")
    batch = tensor if tensor.ndim == 4 else tensor[None]
    if batch.shape[1] == 1:
        raise ValueError("scores: expected 2 classes or more, got 1; refine_mask takes the sigmoid of a single channel")
    values = batch.detach()
    low, high = (value.item() for value in values.aminmax())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("scores: expected finite numbers, got NaN or infinities")
    if 0 <= low < high <= 1 and (values.float().sum(1) - 1).abs().max() < 1e-2:
        raise ValueError("scores: expected logits, got probabilities (0..1, they sum to 1); give their logarithm")
    pixels = image_tensor(image, image_range=image_range, device=batch.device)
    if batch.shape[1:3] == pixels.shape[2:] != batch.shape[2:] and batch.shape[3] > 1:
        raise ValueError(f"scores: expected (C, h, w), class first, got {describe(scores)}, which is class last; "
                         "give scores.transpose(2, 0, 1)")  # fmt: skip
    if len(batch) != len(pixels):
        raise ValueError(f"image: expected as many as scores, {len(batch)}, got {len(pixels)}")
    return batch, pixels


def _refined(scores: Tensor, image: Tensor, stride: int, crf: Crf) -> Tensor:
    """N C h w and N 3 H W -> N C H W."""
    height, width = image.shape[-2:]
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    guide = area_average(image.to(wide.dtype), stride)
    if scores.shape[2:] == guide.shape[2:]:
        return enlarge(crf(wide, guide), stride)[:, :, :height, :width].to(scores.dtype)
    larger = scores.shape[2] > height or scores.shape[3] > width
    fine = functional.interpolate(wide, (height, width), mode="bilinear", align_corners=False, antialias=larger)
    coarse = area_average(fine, stride)
    refined = crf(coarse, guide)
    if stride > 1:
        refined = fine + enlarge(refined - coarse, stride)[:, :, :height, :width]
    return refined.to(scores.dtype)


def _crf(own: Refinement, trained: GuidanceCRF | None, image_range: tuple[float, float]) -> Crf:
    """The untrained or trained guidance CRF, for images in ``image_range``."""

    def crf(scores: Tensor, guide: Tensor) -> Tensor:
        guide = guide_from_image(guide, guide.shape[2:], image_range)
        if trained is None:
            return guidance_crf(scores, guide, **{name: value for name, value in vars(own).items() if name != "stride"})
        if len(trained.compatibility) != scores.shape[1]:
            raise ValueError(f"crf: expected one of {scores.shape[1]} classes, as the scores have, "
                             f"got {len(trained.compatibility)}")  # fmt: skip
        low, high = trained.image_range
        return trained(scores, guide * ((high - low) / 255) + low)

    return crf


def image_tensor(image: object, *, image_range: tuple[float, float], device: torch.device) -> Tensor:
    """A floating point tensor N 3 H W or N 1 H W of any image that ``refine`` takes; ValueError for any other."""
    if isinstance(image, str | Path):
        image = read_image(Path(image))[0]
    if isinstance(image, Image.Image):
        image = picture_pixels(image)
    tensor = as_tensor("image", image)
    last = isinstance(image, np.ndarray)
    form = "an array (H, W), (H, W, 3) or (N, H, W, 3)" if last else "a tensor (3, H, W) or (N, 3, H, W)"
    if tensor.ndim == 2 and last:
        tensor = tensor[..., None]
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or batch.shape[-1 if last else 1] not in (1, 3) or 0 in batch.shape:
        raise ValueError(f"image: expected {form}, RGB or grey, got {describe(image)}")
    batch = batch.permute(0, 3, 1, 2) if last else batch
    check_range(image_range)
    low, high = (value.item() for value in batch.detach().aminmax())
    if not image_range[0] <= low <= high <= image_range[1]:
        raise ValueError(f"image: expected colours in image_range {image_range}, got {low:g} to {high:g}")
    if batch.is_floating_point() and image_range[1] > 1 and 0 < high <= 1:
        raise ValueError(f"image: expected colours up to {image_range[1]:g}, got at most {high:g}; is it 0..1? "
                         "Then give image_range=(0, 1)")  # fmt: skip
    return (batch if batch.is_floating_point() else batch.float()).to(device)


def as_tensor(name: str, value: object) -> Tensor:
    """An array or tensor of numbers as a tensor (wide unsigned integers as int64); ValueError for anything else."""
    if isinstance(value, Tensor):
        return value.long() if value.dtype in (torch.uint16, torch.uint32, torch.uint64) else value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fbui" or value.dtype.itemsize > 8:
        raise ValueError(f"{name}: expected an array or a tensor of numbers, got {describe(value)}")
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        value = value.astype(np.int64)
    elif not value.dtype.isnative or any(step < 0 for step in value.strides) or not value.flags.writeable:
        value = value.astype(value.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(value)


def describe(value: object) -> str:
    """Type, dtype and shape, for messages."""
    if isinstance(value, np.ndarray | Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def _like(result: Tensor, given: Array) -> Array:
    if isinstance(given, Tensor):
        return result.to(given.dtype)
    return result.detach().numpy().astype(given.dtype)


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a JSON file of ``segmodel.tune``, their types checked; UserError for any other file."""
    try:
        settings = json.loads(read_text(path, most="SEGMODEL_MAX_CONFIG_BYTES"))["settings"]
        if not isinstance(settings, dict) or not settings:
            raise ValueError(f"settings: expected a table, got {settings!r:.60}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--settings: {path}: expected a file of segmodel.tune ({error})") from error
    return check_values({"settings": settings}, {"settings": Refinement}, str(path))["settings"]


def read_scores(path: Path) -> np.ndarray:
    """The array of an .npy file; UserError if it cannot be read or holds pickled objects."""
    try:
        scores = np.load(path, allow_pickle=False)
        if not isinstance(scores, np.ndarray):
            raise ValueError(f"it is {type(scores).__name__}")
        return scores
    except Exception as error:  # NumPy's reader raises whatever a broken header leads it to
        raise UserError(f"{path}: cannot be read as an .npy file of numbers ({error})") from error
