"""Draws the picture at the top of the README: a coarse model's labels of a cat before and after refinement.

    python tests/draw_cat.py tests/cat_refined.jpg

cat.jpg: Chelsea, by Stefan van der Walt, CC0 (scikit-image's "chelsea"). cat_scores.npy: logits (2, 38, 57) of rest and
animal, means over blocks of 8 x 8 pixels, of a half-trained patch variant (VOC subset, half-width ResNet-50, 6 epochs).
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import segmodel

HERE = Path(__file__).parent
LARGE = {"radius": 20, "weight": 8.0, "balance": 0.0}  # wide windows: nothing in the picture is thin

if __name__ == "__main__":
    photo, scores = Image.open(HERE / "cat.jpg"), np.load(HERE / "cat_scores.npy").astype(np.float32)
    picture = segmodel.compare(photo, scores, segmodel.refine(scores, photo, **LARGE))
    picture.thumbnail((1000, 1000))
    picture.convert("RGB").save(sys.argv[1], quality=85)
