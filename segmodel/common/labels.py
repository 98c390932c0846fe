"""What every room agrees on about label maps: the ignored label, and colours for classes without their own."""

import numpy as np

IGNORE = 255
"""The label of pixels that are left out of losses and figures."""


def voc_palette(count: int = 21) -> np.ndarray:
    """The colours of the VOC development kit: the bits of the class number dealt to red, green, blue, highest first."""
    numbers = np.arange(count)
    palette = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def is_background(name: str) -> bool:
    """Whether a class of this name is what lies behind the others."""
    return name.lower() == "background"
