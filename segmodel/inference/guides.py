"""Pictures of any kind as guides: colour, grey, several bands, more than 8 bits, features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segmodel.data.images import picture_pixels, read_image
from segmodel.inference.tensors import as_array, as_tensor, describe
from segmodel.model.guided_filter import BANDS, Ranges, check_range, to_bytes

ARRAY = f"an array (H, W), (H, W, bands) or (N, H, W, bands) of 1 to {BANDS} bands"
TENSOR = f"a tensor (bands, H, W) or (N, bands, H, W) of 1 to {BANDS} bands"


def image_tensor(
    image: object, *, image_range: Ranges | None, layout: str | None = None, device: torch.device
) -> Tensor:
    """A float32 or float64 tensor N B H W of any image that ``refine`` takes, ``image_range`` mapped to 0..255.

    Raises:
        ValueError: any other; and one of more than 8 bits whose range is not said.
    """
    if isinstance(image, str | Path):
        image = read_image(Path(image))[0]
    if isinstance(image, Image.Image):
        image = np.array(image) if image.mode == "F" or image.mode.startswith("I") else picture_pixels(image)
    tensor = as_tensor("image", image)
    batch = _bands_first(tensor, image, layout)
    low, high = (value.item() for value in batch.detach().aminmax())
    if image_range is None:
        image_range = _usual_range(tensor, image, low, high)
    check_range(image_range, bands=batch.shape[1])
    batch = batch.to(device)
    wide = batch if batch.dtype == torch.float64 else batch.float()
    if not (low >= np.min(image_range) and high <= np.max(image_range)) or isinstance(image_range[0], Sequence):
        _check_within(wide.detach(), image_range)
    return to_bytes(wide, image_range)


def _bands_first(tensor: Tensor, image: object, layout: str | None) -> Tensor:
    """N B H W; arrays are bands last, tensors bands first, unless ``layout`` says otherwise."""
    if layout not in (None, "CHW", "HWC"):
        raise ValueError(f'image_layout: expected "CHW" or "HWC", got {layout!r}')
    array = not isinstance(image, Tensor)
    last = layout == "HWC" or (layout is None and array)
    if tensor.ndim == 2 and array:
        tensor = tensor[..., None] if last else tensor[None]
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or 0 in batch.shape:
        raise ValueError(f"image: expected {ARRAY if array else TENSOR}, got {describe(image)}")
    first_can, last_can = 1 <= batch.shape[1] <= BANDS, 1 <= batch.shape[3] <= BANDS
    usual, other = (batch.shape[3], batch.shape[1]) if array else (batch.shape[1], batch.shape[3])
    unclear = first_can and last_can and usual not in (1, 3) and (array or other in (1, 3))
    if layout is None and unclear:
        raise ValueError(f"image: expected bands that can be told from rows, got {describe(image)}; "
                         'give image_layout="HWC" (bands last) or "CHW"')  # fmt: skip
    if not (last_can if last else first_can):
        hint = f'; bands {"first" if last else "last"}? Then give image_layout="{"CHW" if last else "HWC"}"'
        hint = hint if (first_can if last else last_can) else ""
        raise ValueError(f"image: expected {ARRAY if array else TENSOR}, got {describe(image)}{hint}")
    return batch.movedim(-1, 1) if last else batch


def _usual_range(tensor: Tensor, image: object, low: float, high: float) -> tuple[float, float]:
    """0..255, for images that hold nothing else."""
    dtype = getattr(as_array(image), "dtype", None) if not isinstance(image, Tensor) else image.dtype
    if str(dtype).removeprefix("torch.") in ("uint16", "int16"):
        raise ValueError(f"image: expected image_range=(black, white) for {dtype}, got none (values {low:g} to "
                         f"{high:g}; all of 16 bits is (0, 65535))")  # fmt: skip
    if not 0 <= low <= high <= 255:
        raise ValueError(f"image: expected colours in 0..255, got {low:g} to {high:g}; give image_range=(black, white)")
    if tensor.is_floating_point() and 0 < high <= 1:
        raise ValueError(f"image: expected colours up to 255, got at most {high:g}; is it 0..1? "
                         "Then give image_range=(0, 1)")  # fmt: skip
    return 0, 255


def _check_within(pixels: Tensor, image_range: Ranges) -> None:
    low, high = pixels.amin((0, 2, 3)).tolist(), pixels.amax((0, 2, 3)).tolist()
    pairs = image_range if isinstance(image_range[0], Sequence) else [image_range]
    pairs = [*pairs] * (len(low) // len(pairs))
    for band, ((black, white), least, most) in enumerate(zip(pairs, low, high, strict=True)):
        if not black <= least <= most <= white:
            raise ValueError(f"image: expected values in image_range, {black:g} to {white:g}, got {least:g} to "
                             f"{most:g} in band {band}; clip them, or give a wider range")  # fmt: skip
