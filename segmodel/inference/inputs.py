"""Scores of any origin as tensors, checked: what the refinement takes, and gives back in kind."""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
from PIL import Image
from torch import Tensor

from segmodel.common.errors import UserError, memory_named
from segmodel.common.reading import open_file
from segmodel.inference.guides import Ranges, image_tensor
from segmodel.inference.tensors import as_array, as_tensor, describe

Array = TypeVar("Array", np.ndarray, Tensor)
Layout = Literal["CHW", "HWC"]
Function = TypeVar("Function", bound=Callable[..., Any])


def in_lists(function: Function) -> Function:
    """``function(values, image, ...)`` that also takes a list of values with a list of images: a list of results."""

    @wraps(function)
    @memory_named(function.__name__)
    def each(values: Any, image: Any, **options: Any) -> Any:
        if not isinstance(values, list | tuple):
            return function(values if isinstance(values, Tensor) else _own(values), image, **options)
        if not isinstance(image, list | tuple) or len(values) != len(image):
            got = f"{len(image)}" if isinstance(image, list | tuple) else describe(image)
            raise ValueError(f"image: expected a list of {len(values)}, one for each in the first list, got {got}")
        return [function(value, picture, **options) for value, picture in zip(values, image, strict=True)]

    return cast(Function, each)


def _own(values: object) -> object:
    """The NumPy array of another library's; anything else as it is."""
    array = None if isinstance(values, Image.Image) else as_array(values)
    return values if array is None else array


def scores_and_pixels(
    scores: object,
    image: object,
    image_range: Ranges | None = None,
    *,
    layout: Layout | None = None,
    image_layout: Layout | None = None,
) -> tuple[Tensor, Tensor]:
    """Tensors ``(N, C, h, w)`` and, in 0..255, ``(N, bands, H, W)`` of what ``refine`` takes.

    Raises:
        ValueError: anything else, also probabilities: they would be refined far too strongly.
    """
    tensor = as_tensor("scores", scores)
    if tensor.ndim not in (3, 4) or not tensor.is_floating_point() or 0 in tensor.shape:
        raise ValueError(f"scores: expected floating point (C, h, w) or (N, C, h, w), got {describe(scores)}")
    batch = class_first(tensor, layout)
    batch = batch if tensor.ndim == 4 else batch[None]
    if batch.shape[1] == 1:
        raise ValueError("scores: expected 2 classes or more, got 1; refine_mask with logits=True takes a single one")
    values = batch.detach()
    low, high = (value.item() for value in values.aminmax())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("scores: expected finite numbers, got NaN or infinities")
    if 0 <= low < high <= 1 and (values.float().sum(1) - 1).abs().max() < 1e-2:
        raise ValueError("scores: expected logits, got probabilities (0..1, they sum to 1); give their logarithm")
    pixels = image_tensor(image, image_range=image_range, layout=image_layout, device=batch.device)
    if layout is None:
        check_layout("scores", scores, batch.shape, pixels.shape[2:])
    if len(batch) != len(pixels):
        raise ValueError(f"image: expected as many as scores, {len(batch)}, got {len(pixels)}")
    return batch, pixels


def class_first(values: Tensor, layout: Layout | None) -> Tensor:
    """``(..., C, h, w)`` of either layout; ``(h, w)`` as it is.

    Raises:
        ValueError: the layout is none.
    """
    if layout not in (None, *get_args(Layout)):
        raise ValueError(f'layout: expected "CHW" or "HWC", got {layout!r}')
    return values.movedim(-1, -3) if layout == "HWC" and values.ndim > 2 else values


def check_layout(name: str, given: object, shape: Sequence[int], size: Sequence[int], *, least: int = 2) -> None:
    """ValueError for a ``shape`` (..., C, h, w) that, beside an image of ``size`` (H, W), looks class last: (h, w, C).

    Or that fits the image turned by 90 degrees. A map as the image's stride gives it has the image's aspect ratio; one
    of an image squeezed into a square is square. ``least``: how many classes there are at least.
    """
    a, b, c = shape[-3:]
    first, last = _stretch((b, c), size), _stretch((a, b), size)
    first_can, last_can = b == c or _fits((b, c), size), a == b or _fits((a, b), size)
    beside = f"beside an image of {size[0]} x {size[1]}, got {describe(given)}"
    if c >= least and ((last_can and not first_can) or (last < first and (last_can or not first_can))):
        raise ValueError(f"{name}: expected height and width last {beside}, which looks like (h, w, C); "
                         'give layout="HWC", or "CHW" if it is not')  # fmt: skip
    if not first_can and _fits((c, b), size):
        raise ValueError(f"{name}: expected the image's height and width {beside}, which fits it turned; turn one "
                         'of them (a photograph may say by EXIF that it is turned), or give layout="CHW"')  # fmt: skip


def _stretch(map_size: Sequence[int], size: Sequence[int]) -> float:
    """How far a map's aspect ratio is from the image's: 0 is none."""
    return abs(math.log(map_size[0] * size[1] / (map_size[1] * size[0])))


def _fits(map_size: Sequence[int], size: Sequence[int]) -> bool:
    """Whether one stride leads from the image to the map, each side rounded up or down."""
    low = max(length / (cells + 1) for cells, length in zip(map_size, size, strict=True))
    return all(low <= length / max(cells - 1, 1e-9) for cells, length in zip(map_size, size, strict=True))


def like(result: Tensor, given: Array, layout: Layout | None = None) -> Array:
    """The result ``(..., H, W)`` as an array or a tensor of the dtype and layout that was given."""
    result = result.movedim(-3, -1) if layout == "HWC" and result.ndim > 2 else result
    if isinstance(given, Tensor):
        return result.to(given.dtype)
    return result.detach().numpy().astype(given.dtype)


def read_scores(path: Path) -> np.ndarray:
    """The array of an .npy file; UserError if it cannot be read or holds pickled objects."""
    try:
        with open_file(path, most="SEGMODEL_MAX_ARRAY_BYTES") as file:
            scores = np.load(file, allow_pickle=False)
        if not isinstance(scores, np.ndarray):
            raise ValueError(f"it is {type(scores).__name__}")
        return scores
    except Exception as error:  # NumPy's reader raises whatever a broken header leads it to
        raise UserError(f"{path}: cannot be read as an .npy file of numbers ({error})") from error
