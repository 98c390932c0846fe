"""A page on which the refinement of one picture is tried by hand: Algorithm 1 under sliders, in one file, offline."""

import base64
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from segmodel.common import html
from segmodel.common.labels import voc_palette
from segmodel.inference.inputs import Layout, scores_and_pixels
from segmodel.inference.refinement import refined
from segmodel.model.untrained_crf import Refinement, Resolved
from segmodel.model.upsampling import area_average

LARGEST = 600 * 1024
"""Bytes of a page; what is too large for it is stored more coarsely, and the page says so."""
SENTENCE = 500
"""Bytes of the sentence that is added last."""
PIXELS, NUMBERS = 500_000, 6_000_000
"""Pixels, and scores of pixels, that a browser refines while a slider moves."""
STRIDES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
POSSIBLE = 1e-3
"""Probability that a class has somewhere, or it may be left out."""
SHOWN = 1000
"""Pixels of the photograph's longer side at most."""
WORDS = """Left of the line: the labels before; right of it: after the guidance CRF (Algorithm 1). Drag the line, move
the sliders. Boundaries are white; the numbers on the picture are those of the table of classes."""
SCRIPTS = ("arithmetic.js", "live.js")
"""Of the paper's own page, read as text: the arithmetic is tested there against the oracle."""


def explorer(
    scores: np.ndarray,
    image: np.ndarray,
    *,
    title: str,
    names: Sequence[str] = (),
    layout: Layout | None = None,
    **settings: Any,
) -> str:
    """An HTML page: labels before and after ``refine(scores, image, **settings)``, and sliders for the settings.

    Args:
        scores: logits ``(C, h, w)``, C at most 255.
        image: ``(H, W, 3)`` uint8.
        names: of the classes (default: their numbers).

    Raises:
        ValueError: as ``refine``; or as many names as there are not classes.
    """
    batch, pixels = scores_and_pixels(scores, image, layout=layout)
    if batch.shape[1] > 255 or len(names) not in (0, batch.shape[1]):
        raise ValueError(f"names: expected one for each of at most 255 classes, got {len(names)} for {batch.shape[1]}")
    batch = batch.float()
    given = _rounded(Refinement(**settings).resolved(batch, image.shape[:2]))
    names = list(names) or [f"class {number}" for number in range(batch.shape[1])]
    before = refined(batch, pixels, Refinement(**asdict(given)), None, (0, 255))[0].argmax(0)
    factor = _factor(batch.shape[1] * image.shape[0] * image.shape[1], image.shape[0] * image.shape[1], given.stride)
    for data, stored in _attempts(batch, pixels, given, factor):  # noqa: B007 (the last is used below)
        data |= {"names": [names[number] for number in data["classes"]],
                 "colours": voc_palette(256)[data["classes"]].tolist()}  # fmt: skip
        notes = data.pop("notes")
        if len(_page(title, data, image, notes)) <= LARGEST - SENTENCE:
            break
    return _page(title, data, image, [*notes, _agreement(stored, data["classes"], pixels, given, factor, before)])


def _rounded(found: Resolved) -> Resolved:
    """Four digits of each setting: what the page shows is what it computes with."""
    eps, weight, balance = (float(f"{value:.4g}") for value in (found.eps, found.weight, found.balance))
    return replace(found, eps=eps, weight=weight, balance=balance)


def _factor(numbers: int, pixels: int, stride: int) -> int:
    """Pixels of the photograph along a side of one of the page; a divisor of the stride if one suffices."""
    least = next(side for side in range(1, 1000) if numbers <= NUMBERS * side**2 and pixels <= PIXELS * side**2)
    return next((side for side in range(least, stride + 1) if stride % side == 0), least)


def _attempts(batch: Tensor, pixels: Tensor, given: Resolved, factor: int) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """The page's data, ever coarser, and the scores in it: first no narrow strides, then no impossible classes."""
    size = [-(-side // factor) for side in pixels.shape[2:]]
    start = max(1, round(given.stride / factor))
    offered = sorted({start, *(stride for stride in STRIDES if stride <= max(min(size) // 8, 1))})
    if any(cells > side for cells, side in zip(batch.shape[2:], size, strict=True)):
        batch = functional.interpolate(batch, size, mode="bilinear", align_corners=False, antialias=True)
    everything, likely = range(batch.shape[1]), batch.softmax(1).amax((0, 2, 3))
    possible = [number for number in everything if likely[number] >= POSSIBLE]
    narrow = [stride for stride in offered if stride <= start]
    ways = [(least, everything, 1) for least in narrow] + [(start, possible, coarser) for coarser in range(1, 65)]
    for least, classes, coarser in ways:
        stored = area_average(batch[:, list(classes)], coarser)
        stored = (stored - stored.amax(1, keepdim=True)).clamp(min=-60_000).half()  # the softmax cares for no more
        notes = [f"A pixel of this page is {factor} x {factor} of the photograph."] * (factor > 1)
        notes += [f"{len(everything) - len(classes)} of {len(everything)} classes are left out: none is anywhere as "
                  f"probable as {POSSIBLE:g}."] * (len(classes) < len(everything))  # fmt: skip
        notes += [f"Scores are means of {coarser} x {coarser} of those given."] * (coarser > 1)
        data = {
            "size": size, "factor": factor, "cells": list(stored.shape[2:]), "classes": list(classes), "notes": notes,
            "settings": {**asdict(given), "stride": start}, "scores": _packed(stored.view(torch.uint16)[0].numpy()),
            "guides": {stride: _guide(pixels, stride * factor) for stride in offered if stride >= least},
        }  # fmt: skip
        yield data, stored.float()


def _guide(pixels: Tensor, side: int) -> dict[str, Any]:
    """Mean colours of blocks of side x side pixels as whole numbers, exact up to 16 x 16."""
    units = min(side * side, 257)
    means = area_average(pixels, side)[0].double().mul(units).round()
    return {"units": units, "colours": _packed(means.numpy().astype(np.uint16))}


def _packed(numbers: np.ndarray) -> str:
    """uint16 numbers, deflated: first all low bytes, then all high ones."""
    flat = numbers.ravel()
    return base64.b64encode(zlib.compress(((flat & 255).astype(np.uint8).tobytes()
                                           + (flat >> 8).astype(np.uint8).tobytes()), 9)).decode("ascii")  # fmt: skip


def _agreement(
    stored: Tensor, classes: Sequence[int], pixels: Tensor, given: Resolved, factor: int, before: Tensor
) -> str:
    """A sentence: at how many pixels the stored numbers give another label than ``refine``."""
    picture = area_average(pixels, factor)
    own = replace(given, stride=max(1, round(given.stride / factor)))
    labels = refined(stored, picture, Refinement(**asdict(own)), None, (0, 255))[0].argmax(0)
    rows, columns = (torch.arange(side) * factor + factor // 2 for side in labels.shape)
    expected = before[rows.clamp(max=before.shape[0] - 1)][:, columns.clamp(max=before.shape[1] - 1)]
    wrong = int((torch.tensor(classes)[labels] != expected).sum())
    return (f"Scores are stored as float16. With the first settings {wrong:,} of {labels.numel():,} pixels "
            f"({100 * wrong / labels.numel():.2f} %) have another label than refine gives them.")  # fmt: skip


def _page(title: str, data: Mapping[str, Any], image: np.ndarray, notes: Sequence[str]) -> str:
    paper = resources.files("segmodel.reference")
    photo = Image.fromarray(image)
    photo.thumbnail((SHOWN, SHOWN))
    file = io.BytesIO()
    photo.save(file, format="JPEG", quality=85)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    scripts = [(paper / name).read_text(encoding="utf-8") for name in SCRIPTS]
    scripts.append((resources.files("segmodel.inference") / "explore.js").read_text(encoding="utf-8"))
    numbers = json.dumps(data).replace("</", "<\\/")
    blocks = [
        html.paragraph(WORDS),
        f'<div id="explorer"><p class="waiting">This page needs JavaScript.</p>'
        f'<img hidden alt="" src="data:image/jpeg;base64,{encoded}"></div>',
        html.folded("What this page leaves out", *(html.paragraph(note) for note in notes)),
        f'<script type="application/json" id="data">{numbers}</script>',
        f"<script>{''.join(scripts)}</script>",
    ]
    return html.page(title, blocks, style=(paper / "live.css").read_text(encoding="utf-8"))
