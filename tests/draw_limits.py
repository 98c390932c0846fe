"""Draws what refinement cannot do: python tests/draw_limits.py limits.png [--scores-stride 16]

Three drawn pictures whose truth is known: a post six pixels wide, hair, and a wall of the colour of the sky behind it.
The scores are the truth's shares in blocks of 16 x 16 pixels, as a good model of that stride would give them. Columns:
picture, truth, scores enlarged bilinearly, refined with the defaults. Below: of what is hard, the post below its sign,
the strands, and 12 pixels on either side of the wall's upper edge, the share that is found and the intersection over
union.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional

from segmodel import refine
from segmodel.common.pictures import lettered, save_picture, sheet
from segmodel.model.upsampling import area_average

HEIGHT, WIDTH = 192, 256
SHARE = 0.02
"""Added to the shares before their logarithm: how sure the scores are where a block is all one class."""
COLOUR = np.array([230, 60, 40])
TITLES = ("picture", "truth", "scores enlarged bilinearly", "refined, default settings")


def noisy(pixels: np.ndarray, amount: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, amount, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def background(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> np.ndarray:
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    return np.broadcast_to((1 - share) * np.array(top) + share * np.array(bottom), (HEIGHT, WIDTH, 3)).copy()


Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The picture, the object, and where it is hard."""


def post() -> Drawn:
    """A dark post six pixels wide, with a sign, before a bright street: every edge is in the picture."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[30:180, 125:131] = True
    mask[30:62, 108:148] = True
    pixels = background((190, 205, 225), (120, 118, 112))
    pixels[mask] = (60, 62, 70)
    return noisy(pixels, 5, 1), mask, np.arange(HEIGHT)[:, None] >= 70


def hair() -> Drawn:
    """A head, and strands one pixel wide around it."""
    random = np.random.default_rng(2)
    picture = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((88, 62, 168, 172), fill=255)
    head = np.array(picture) > 0
    for angle in np.linspace(np.pi, 2 * np.pi, 46):
        bend = random.normal(0, 0.25)
        steps = np.linspace(0, 1, 12)
        reach = 40 + random.uniform(22, 46) * steps
        x, y = 128 + reach * np.cos(angle + bend * steps), 112 + reach * 1.2 * np.sin(angle + bend * steps)
        draw.line(list(zip(x, y, strict=True)), fill=255, width=1)
    mask = np.array(picture) > 0
    pixels = background((150, 170, 140), (110, 130, 100))
    pixels[mask] = (70, 45, 30)
    return noisy(pixels, 8, 3), mask, ~head


def wall() -> Drawn:
    """A wall of the colour of the sky: its upper edge is in the truth and not in the picture."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[84:, 40:216] = True
    pixels = background((168, 172, 178), (168, 172, 178))
    pixels[84:, :40] = pixels[84:, 216:] = (96, 128, 82)
    return noisy(pixels, 4, 4), mask, np.abs(np.arange(HEIGHT)[:, None] - 83.5) < 12


def scores_of(mask: np.ndarray, stride: int) -> np.ndarray:
    """Logits (2, h, w): the logarithm of the classes' shares in the blocks."""
    share = area_average(torch.from_numpy(mask).float()[None, None], stride)[0, 0]
    return (torch.stack([1 - share, share]) + SHARE).log().numpy()


def figures(found: np.ndarray, truth: np.ndarray) -> str:
    recall, iou = (found & truth).sum() / truth.sum(), (found & truth).sum() / (found | truth).sum()
    return f"found {100 * recall:.0f} %, IoU {100 * iou:.0f} %"


def tinted(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], 0.4 * pixels + 0.6 * COLOUR, pixels).astype(np.uint8)


def row(name: str, pixels: np.ndarray, mask: np.ndarray, hard: np.ndarray, stride: int) -> list[list[np.ndarray]]:
    """The four pictures, and the texts below them."""
    scores = scores_of(mask, stride)
    plain = functional.interpolate(torch.from_numpy(scores)[None], mask.shape, mode="bilinear")[0].argmax(0).numpy() > 0
    refined = refine(scores, pixels).argmax(0) > 0
    shown = [pixels, *(tinted(pixels, found) for found in (mask, plain, refined))]
    shown = [np.repeat(np.repeat(panel, 2, 0), 2, 1) for panel in shown]
    texts = [name, "", *(figures(found & hard, mask & hard) for found in (plain, refined))]
    print(f"{name}: bilinear {texts[2]}; refined {texts[3]}")
    return [shown, [lettered([(text, None)], 2 * WIDTH) for text in texts]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scores-stride", type=int, default=16)
    options = parser.parse_args()
    rows = [[lettered([(title, None)], 2 * WIDTH) for title in TITLES]]
    for name, make in (("post, 6 pixels wide", post), ("hair, 1 pixel wide", hair), ("wall of the sky's colour", wall)):
        rows += row(name, *make(), options.scores_stride)
    save_picture(options.output, sheet(rows))


if __name__ == "__main__":
    main()
