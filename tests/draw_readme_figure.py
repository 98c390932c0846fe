"""Draws the README's figure from two built-in scenes: python tests/draw_readme_figure.py RUN tests/scenes.png

RUN is what ``python -m segmodel.train`` writes. Columns: input, truth, guidance CRF off, on, and close-ups of both.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segmodel import SegModel
from segmodel.common.pictures import colourise, save_picture
from segmodel.data import open_data
from segmodel.inference.views import label_maps

SCENES = {3: (40, 20), 17: (84, 58)}  # index in val: row and column of its close-up
TITLES = ("input", "truth", "guidance off", "guidance on", "off, close", "on, close")
SIDE, GAP, HEAD = 200, 6, 26
CLOSE = 40


def tile(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def main(run: str, output: str) -> None:
    data, model = open_data("scenes", split="val"), SegModel.load(run)
    step = SIDE + GAP
    canvas = Image.new("RGB", (step * len(TITLES) + GAP, HEAD + step * len(SCENES)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for column, title in enumerate(TITLES):
        draw.text((GAP + step * column, 4), title, "black", font)
    for row, (index, (top, left)) in enumerate(SCENES.items()):
        sample = data[index]
        maps = [sample.label, *label_maps(model, sample.image, guidance={"off": False, "on": True}).values()]
        truth, off, on = (colourise(labels, data.palette) for labels in maps)
        near = np.s_[top : top + CLOSE, left : left + CLOSE]
        for column, pixels in enumerate((sample.image, truth, off, on, off[near], on[near])):
            canvas.paste(tile(pixels), (GAP + step * column, HEAD + step * row))
        for column in (2, 3):
            x, y = GAP + step * column + left * SIDE / 128, HEAD + step * row + top * SIDE / 128
            draw.rectangle((x, y, x + CLOSE * SIDE / 128, y + CLOSE * SIDE / 128), outline="black", width=2)
    save_picture(Path(output), np.asarray(canvas))


if __name__ == "__main__":
    main(*sys.argv[1:])
