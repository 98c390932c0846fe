"""Label maps and masks as pictures, read and drawn in the same kind of picture: palette, grey or colours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segmodel.data.images import LABEL_MODES, read_numbers

COLOURS = 256
"""Most colours of a picture that are taken for classes: more are a photograph."""


@dataclass(frozen=True)
class LabelPicture:
    """The values (H, W) of a picture, colours as 24-bit numbers, and how it is drawn.

    ``kind``: the mode of the PIL image; "grey" is RGB of three equal channels.
    """

    values: np.ndarray
    kind: str
    palette: list[int] | None = None

    @classmethod
    def of(cls, given: Image.Image | str | Path) -> "LabelPicture":
        """That of a PIL image, or of the picture at a path.

        Raises:
            ValueError: it cannot be read, is compressed with loss, or has too many colours.
        """
        if isinstance(given, Image.Image):
            name, pixels, mode, palette = "picture", np.array(given), given.mode, given.getpalette()
            if mode not in LABEL_MODES:
                raise ValueError(f"labels: expected numbers or colours, got a picture of mode {mode}")
        else:
            name, (pixels, mode, palette) = str(given), read_numbers(Path(given))
        if pixels.ndim == 2:
            return cls(pixels, mode, palette)
        if (pixels == pixels[..., :1]).all():
            return cls(pixels[..., 0].copy(), "grey")
        values = (pixels.astype(np.int64) << (16, 8, 0)).sum(-1)
        if (count := len(np.unique(values))) > COLOURS:
            raise ValueError(f"{name}: expected a grey mask, or labels of at most {COLOURS} colours, got {count}: "
                             "a photograph?")  # fmt: skip
        return cls(values, mode)

    @property
    def colours(self) -> bool:
        """Whether the values are colours, red in the highest of three bytes."""
        return self.kind == "RGB"

    def table(self) -> np.ndarray | None:
        """The palette ``(C, 3)`` uint8, if there is one."""
        return None if self.palette is None else np.array(self.palette, np.uint8).reshape(-1, 3)

    def drawn(self, values: np.ndarray) -> Image.Image:
        """Other values as a picture of the same kind."""
        if self.kind == "grey":
            return Image.fromarray(np.repeat(values[..., None], 3, 2))
        if self.colours:
            return Image.fromarray((values[..., None] >> (16, 8, 0) & 255).astype(np.uint8))
        picture = Image.fromarray(values)
        if self.palette is not None:
            picture.putpalette(self.palette)
        return picture
