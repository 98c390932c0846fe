"""Small files of every kind for the tests of the data sets, and what their errors must look like."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmodel.data import DataError, open_data

SIZE = (6, 8)  # height, width


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, **options) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return np.asarray(Image.open(path).convert("RGB"))


def save_label(path: Path, values: list[int], palette: np.ndarray | None = None) -> np.ndarray:
    """A grey PNG, or a palette PNG, that repeats these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.resize(np.array(values, np.uint8), SIZE)
    image = Image.fromarray(label)
    if palette is not None:
        image.putpalette(palette.tobytes())
        assert image.mode == "P"
    image.save(path)
    return label


def fails(spec: str, *parts: str, split: str = "train", index: int | None = None) -> None:
    """Opening (or, with `index`, reading) raises one line with all these parts in it."""
    data = open_data(spec, split=split) if index is not None else None
    with pytest.raises(DataError) as error:
        open_data(spec, split=split) if data is None else data[index]
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
