"""The still figures of the page, drawn as SVG, and the data of the live ones: nothing here but NumPy and strings."""

import base64
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Labels, one_hot, softmax
from .bilinear_target import ambiguous_share, attainable_iou, coarse_targets
from .guidance_crf import guidance_crf_steps, guidance_functional, potts

INK, SOFT, COLOURS = "var(--ink)", "var(--faint)", ("#3b6fb6", "#d1603d", "#4f9d69", "#8e6bb0")


def svg(width: float, height: float, *parts: str) -> str:
    """Return an inline picture that shrinks with the page."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img">{"".join(parts)}</svg>'


def text(x: float, y: float, words: object, *, anchor: str = "middle", size: int = 12, colour: str = INK) -> str:
    """Return words at a point."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, *, edge: str = "none", opacity: float = 1) -> str:
    """Return a rectangle."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{edge}" '
        f'fill-opacity="{opacity:g}"/>'
    )


def curve(xs: NDArray[Any], ys: NDArray[Any], colour: str, dashes: str = "none") -> str:
    """Return a line, whole or dashed, with a dot at each of its points."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in zip(xs, ys, strict=True))
    look = f'stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dashes}"'
    return f'<polyline points="{points}" fill="none" {look}/>{dots}'


def scene(side: int = 128) -> tuple[Array, Labels]:
    """Return a small picture with thin and round things on a textured ground, and its labels 0, 1, 2."""
    rng = np.random.default_rng(7)
    y, x = np.indices((side, side)) * 128 / side
    labels = np.zeros((side, side), dtype=np.int64)
    labels[(y - 52) ** 2 + (x - 46) ** 2 < 30**2] = 1
    labels[(y - 52) ** 2 + (x - 46) ** 2 < 11**2] = 0
    for left in (84, 94, 104, 114):  # a fence: narrower than a cell
        labels[(abs(x - left) < 2.5) & (y > 24)] = 2
    labels[(abs(y - 96 - 0.12 * x) < 4) & (x > 8)] = 2
    base = np.array([[92.0, 128, 84], [196, 92, 60], [66, 74, 120]])
    shade = (20 * np.sin(x / 9 + y / 23))[..., None]
    return base[labels] + shade + rng.normal(0, 5, (side, side, 1)), labels


def weights_data() -> dict[str, object]:
    """Data of the live figure of Eq. 12: a part of the scene, with a round edge and thin bars."""
    pixels = _bytes(scene()[0][22:52, 56:96])
    return {"height": pixels.shape[0], "width": pixels.shape[1], "pixels": _base64(pixels)}


def algorithm_data(side: int = 96) -> dict[str, object]:
    """Data of the live figure of Algorithm 1: the scene, its truth, and scores of cells of 4 pixels."""
    image, labels = scene(side)
    scores = np.log(np.maximum(coarse_targets(one_hot(labels, 3), factor=4), 0.1)).astype("<f4")
    return {
        "side": side,
        "cells": side // 4,
        "pixels": _base64(_bytes(image)),
        "truth": _base64(labels.astype(np.uint8)),
        "scores": _base64(np.ascontiguousarray(np.moveaxis(scores, 2, 0))),
    }


def _bytes(pixels: Array) -> NDArray[np.uint8]:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def functional_per_iteration() -> str:
    """Plot F after each iteration of Algorithm 1 for Potts at three weights, and for minus Potts, where it swings."""
    image, labels = scene(32)
    scores = np.random.default_rng(0).normal(size=(32, 32, 3)) + 1.5 * one_hot(labels, 3)
    runs = [(f"Potts, weight {w:g}", potts(3), w) for w in (0.5, 2.0, 8.0)] + [
        ("minus Potts, weight 8", -potts(3), 8.0)
    ]
    parts = [text(40, 205, "iteration", anchor="start", size=11)]
    for k, (name, mu, weight) in enumerate(runs):
        steps = guidance_crf_steps(scores, image, compatibility=mu, weight=weight, iterations=10)
        f = np.array([guidance_functional(softmax(s), scores, image, compatibility=mu, weight=weight) for s in steps])
        up = sum(after > before + 1e-9 * abs(before) for before, after in pairwise(f))
        f = (f - f.min()) / (np.ptp(f) or 1)
        dashes = ("none", "8 4", "2 3", "10 3 2 3")[k]
        parts.append(curve(40 + 35.0 * np.arange(11), 180 - 160 * f, COLOURS[k], dashes))
        parts.append(curve(np.array([410, 450]), np.full(2, 36.0 + 20 * k), COLOURS[k], dashes))
        parts.append(text(460, 40 + 20 * k, f"{name}: rises {up} times of 10", anchor="start"))
    parts += [text(40 + 35 * k, 192, k, size=10, colour=SOFT) for k in range(11)]
    parts += [text(410, 130, "F - least, each scaled to its range", anchor="start", size=11)]
    return svg(720, 210, *parts)


def ambiguous_targets() -> str:
    """Plot the share of ambiguous targets and the attainable mIoU against the patch size n."""
    labels = scene()[1]
    parts = [box(40, 20, 360, 150, "none", edge=SOFT)]
    for k, n in enumerate((1, 2, 4)):
        share = ambiguous_share(labels, cell=16 // n)
        iou = attainable_iou(labels, 3, cell=16 // n, steps=150)
        for j, value in enumerate((share, iou)):
            x = 60 + 120 * k + 45 * j
            parts += [box(x, 170 - 150 * value, 40, 150 * value, COLOURS[1 - j], opacity=0.8)]
            parts += [text(x + 20, 165 - 150 * value, f"{value:.3f}", size=11)]
        parts.append(text(102 + 120 * k, 186, f"n = {n}, {16 // n} pixels a cell", size=10))
    parts += [text(415, 50, "left bars: share of ambiguous targets", anchor="start", size=11)]
    parts += [text(415, 70, "right bars: mIoU of the best scores found", anchor="start", size=11)]
    return svg(640, 192, *parts)


def architecture(stages: Sequence[tuple[str, str, str]]) -> str:
    """Fig. 4: one box a stage; ``stages`` are (name, what it is, shape of its output), from a model that was run."""
    parts = []
    for k, (name, kind, shape) in enumerate(stages):
        x, y = 10 + 255 * (k % 3), 10 + 85 * (k // 3)
        parts += [box(x, y, 225, 58, COLOURS[k % 4], edge=COLOURS[k % 4], opacity=0.12)]
        parts += [text(x + 112, y + 18, name), text(x + 112, y + 34, kind, size=10, colour=SOFT)]
        parts += [text(x + 112, y + 50, shape, size=11)]
        if k + 1 < len(stages):
            parts += [text(x + 240, y + 34, "→", size=16) if k % 3 < 2 else text(x + 112, y + 76, "↵", size=16)]
    return svg(760, 20 + 85 * -(-len(stages) // 3), *parts)
