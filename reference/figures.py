"""The figures of the page, computed on the spot and drawn as SVG: nothing here but NumPy and strings."""

import base64
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Labels, bilinear_upsample, one_hot, softmax
from .bilinear_target import ambiguous_share, attainable_iou, coarse_targets, fit_scores
from .context_crf import FEATURE_RINGS, ring_boxes
from .guidance_crf import guidance_crf, guidance_crf_steps, guidance_functional, potts
from .guided_filter import guided_filter_adjoint

INK, SOFT, COLOURS = "#333", "#999", ("#3b6fb6", "#d1603d", "#4f9d69", "#8e6bb0")


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


def curve(xs: NDArray[Any], ys: NDArray[Any], colour: str) -> str:
    """Return a line with a dot at each of its points."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in zip(xs, ys, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>{dots}'


def picture(pixels: Array, x: float, y: float, width: float, height: float) -> str:
    """Return an (H, W, 3) picture in 0..255 as an embedded PNG, its pixels square and sharp."""
    rows = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return (
        f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{base64.b64encode(png).decode()}"/>'
    )


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


def belief_and_frequency() -> str:
    """Fig. 1 and 2: what three cells are asked for, and what is best for their pixels."""
    row = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1])
    p = one_hot(row[None].repeat(4, axis=0), 2)
    values = (coarse_targets(p, factor=4)[0, :, 0], softmax(fit_scores(p, factor=4))[0, :, 0])
    parts = [box(40 + 40 * i, 12, 38, 24, COLOURS[label], opacity=0.8) for i, label in enumerate(row)]
    parts += [text(30, 29, "truth", anchor="end", size=11)]
    for cell in range(3):
        for k, (value, name) in enumerate(zip((v[cell] for v in values), ("histogram", "best scores"), strict=True)):
            x = 60 + 160 * cell + 66 * k
            parts += [box(x, 160 - 100 * value, 50, 100 * value, COLOURS[0], opacity=(0.45, 0.95)[k])]
            parts += [box(x, 60, 50, 100, "none", edge=SOFT), text(x + 25, 154 - 100 * value, f"{value:.3f}", size=11)]
            parts += [text(x + 25, 174, name, size=10)]
    return svg(530, 182, *parts)


def rings_and_areas() -> str:
    """Fig. 3: the boxes of the two rings on a field of 33 x 33 cells."""
    cell, centre = 10, 16
    parts = [box(0, 0, 330, 330, "none", edge=SOFT)]
    for ring, colour in zip(FEATURE_RINGS[::-1], COLOURS[1::-1], strict=True):
        for top, bottom, left, right in ring_boxes(ring):
            x, y, width, height = left + centre, top + centre, right - left + 1, bottom - top + 1
            parts.append(box(cell * x, cell * y, cell * width, cell * height, colour, edge=colour, opacity=0.25))
        parts.append(text(470, 40 + 22 * ring.radius, f"radius {ring.radius}, dilation {ring.dilation}", colour=colour))
        areas = f"9 areas of {width} x {height} = {width * height} cells"
        parts.append(text(470, 55 + 22 * ring.radius, areas, size=11))
    parts.append(box(cell * centre, cell * centre, cell, cell, INK))
    parts.append(text(470, 200, f"field: {2 * centre + 1} x {2 * centre + 1} cells (the paper: 28 x 28)", size=11))
    return svg(600, 332, *parts)


def rows_of_w() -> str:
    """Show rows of W (Eq. 12) for a pixel beside an edge, on the edge picture and on a flat one."""
    side, radius = 15, 3
    edge = np.full((side, side, 3), 60.0)
    edge[:, 8:] = (200, 170, 90)
    parts, scale = [], 10
    for k, (guide, name) in enumerate(((edge, "beside an edge"), (np.full_like(edge, 90.0), "on a flat picture"))):
        here = np.zeros((side, side, 1))
        here[7, 6] = 1
        w = guided_filter_adjoint(here, guide, radius=radius)[..., 0]  # row i of W is W^T applied to pixel i alone
        shown = 255 - np.clip(w / w.max(), 0, 1)[..., None] * np.array([196.0, 144, 73])
        shown[7, 6] *= 0.75
        left = 330 * k
        parts += [picture(guide, left, 0, scale * side, scale * side), text(left + 75, 168, "guide", size=11)]
        parts += [picture(shown, left + 160, 0, scale * side, scale * side)]
        parts += [
            text(left + 235, 168, f"row of W, {name}", size=11),
            text(left + 235, 182, f"sum {w.sum():.3f}", size=11),
        ]
        parts += [box(left + 160, 0, 150, 150, "none", edge=SOFT)]
    return svg(650, 190, *parts)


def coarse_and_refined() -> str:
    """Show what Algorithm 1 does to a coarse map: cells of 4 pixels, up-sampled bilinearly, then refined."""
    image, labels = scene()
    coarse = np.log(np.maximum(coarse_targets(one_hot(labels, 3), factor=4), 0.1))
    up = bilinear_upsample(coarse, factor=4)
    found = [scores.argmax(axis=2) for scores in (up, guidance_crf(up, image))]
    palette = np.array([[226.0, 226, 220], [209, 96, 61], [59, 111, 182], [0, 0, 0]])
    shown = [image, palette[labels]] + [palette[np.where(each == labels, labels, 3)] for each in found]
    wrong = [f"{100 * (each != labels).mean():.2f} % wrong (black)" for each in found]
    names = ("guide", "truth", f"coarse: {wrong[0]}", f"refined: {wrong[1]}")
    parts = [picture(each, 190 * k, 0, 180, 180) for k, each in enumerate(shown)]
    return svg(750, 200, *parts, *(text(190 * k + 90, 196, name, size=11) for k, name in enumerate(names)))


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
        parts.append(curve(40 + 35.0 * np.arange(11), 180 - 160 * f, COLOURS[k]))
        parts.append(text(410, 40 + 20 * k, f"{name}: rises {up} times of 10", anchor="start", colour=COLOURS[k]))
    parts += [text(40 + 35 * k, 192, k, size=10, colour=SOFT) for k in range(11)]
    parts += [text(410, 130, "F - least, each scaled to its range", anchor="start", size=11)]
    return svg(690, 210, *parts)


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
    parts += [text(415, 50, "share of ambiguous targets", anchor="start", size=11, colour=COLOURS[1])]
    parts += [text(415, 70, "mIoU of the best scores found", anchor="start", size=11, colour=COLOURS[0])]
    return svg(620, 192, *parts)


def architecture(stages: Sequence[tuple[str, str, str]]) -> str:
    """Fig. 4: one box a stage; ``stages`` are (name, what it is, shape of its output), from a model that was run."""
    parts = []
    for k, (name, kind, shape) in enumerate(stages):
        x, y = 10 + 255 * (k % 3), 10 + 85 * (k // 3)
        parts += [box(x, y, 225, 58, COLOURS[k % 4], edge=COLOURS[k % 4], opacity=0.12)]
        parts += [text(x + 112, y + 18, name), text(x + 112, y + 34, kind, size=10, colour="#666")]
        parts += [text(x + 112, y + 50, shape, size=11)]
        if k + 1 < len(stages):
            parts += [text(x + 240, y + 34, "→", size=16) if k % 3 < 2 else text(x + 112, y + 76, "↵", size=16)]
    return svg(760, 20 + 85 * -(-len(stages) // 3), *parts)
