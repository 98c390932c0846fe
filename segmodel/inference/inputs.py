"""Scores and pictures of any origin as tensors, checked: what the refinement takes, and gives back in kind."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segmodel.common.errors import UserError
from segmodel.data.images import picture_pixels, read_image
from segmodel.model.guided_filter import check_range

Array = TypeVar("Array", np.ndarray, Tensor)


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


def like(result: Tensor, given: Array) -> Array:
    """The result as an array or a tensor of the dtype that was given."""
    if isinstance(given, Tensor):
        return result.to(given.dtype)
    return result.detach().numpy().astype(given.dtype)


def read_scores(path: Path) -> np.ndarray:
    """The array of an .npy file; UserError if it cannot be read or holds pickled objects."""
    try:
        scores = np.load(path, allow_pickle=False)
        if not isinstance(scores, np.ndarray):
            raise ValueError(f"it is {type(scores).__name__}")
        return scores
    except Exception as error:  # NumPy's reader raises whatever a broken header leads it to
        raise UserError(f"{path}: cannot be read as an .npy file of numbers ({error})") from error
