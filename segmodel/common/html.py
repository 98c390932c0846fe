"""HTML pages in one file: pictures and curves inside, no scripts, light or dark.

A page is ``page(title, blocks)``; a block is made by one of the functions below or by ``Table.html``. All escape their
text.
"""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

Curve = Sequence[tuple[float, float]]
COLOURS = ("#3b76c4", "#d0632b", "#3f9a55", "#b0478f", "#8a7a22", "#7a5fc7")
"""Of the curves, in turn; legible on white and on black."""
STYLE = (resources.files("segmodel.common") / "report.css").read_text(encoding="utf-8")


def page(title: str, blocks: Iterable[str]) -> str:
    """The whole HTML document."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
    )
    return head + "\n".join(blocks) + "\n</body>\n</html>\n"


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def picture(pixels: np.ndarray, caption: str = "") -> str:
    """Pixels ``(H, W, 3)`` or ``(H, W)`` uint8 as a PNG inside the page.

    Raises:
        ValueError: another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"pixels: expected uint8 (H, W, 3) or (H, W), got {pixels.dtype} {pixels.shape}")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    height, width = pixels.shape[:2]
    image = f'<img width="{width}" height="{height}" alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def configuration(values: str | Mapping[str, Any]) -> str:
    """A TOML text as it is, or a mapping as TOML: one line a value, a section for a mapping inside it."""
    text = values if isinstance(values, str) else "\n".join(_toml_lines(values))
    return f"<pre>{escape(text.strip())}</pre>"


def _toml_lines(values: Mapping[str, Any]) -> list[str]:
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if not isinstance(value, Mapping)]
    for name, section in values.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{name}]", *_toml_lines(section)]
    return lines


def curves(series: Mapping[str, Curve], *, x_label: str = "", y_label: str = "", caption: str = "") -> str:
    """A line chart of named series of points ``(x, y)``; a point that is not finite leaves a gap."""
    points = [point for curve in series.values() for point in curve if _finite(point)]
    if not points:
        return f"<figure><figcaption>{escape(caption)} (no points)</figcaption></figure>"
    (x_low, x_high), (y_low, y_high) = (_limits([point[axis] for point in points]) for axis in (0, 1))
    width, height, left, right, top, bottom = 640, 340, 58, 12, 12, 44 + 18 * len(series)
    plot_width, plot_height = width - left - right, height - top - 44

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across, up = (point[0] - x_low) / (x_high - x_low), (point[1] - y_low) / (y_high - y_low)
        return left + plot_width * across, top + plot_height * (1 - up)

    parts = []
    for value in _ticks(y_low, y_high):
        y = place((x_low, value))[1]
        parts.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="var(--line)"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(x_low, x_high):
        x = place((value, y_low))[0]
        parts.append(f'<path d="M{x:.1f} {height - 44}v4" stroke="var(--faint)"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 26}" text-anchor="middle">{value:g}</text>')
    for index, (name, curve) in enumerate(series.items()):
        colour, y = COLOURS[index % len(COLOURS)], height + 18 * index
        parts.append(_line([place(point) if _finite(point) else None for point in curve], colour))
        parts.append(f'<path d="M{left} {y}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{left + 32}" y="{y + 4}">{escape(name)}</text>')
    middle = f"{left + plot_width / 2:.0f}"
    parts.append(f'<text x="{middle}" y="{height - 10}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(12 {top + plot_height / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    box = f'viewBox="0 0 {width} {height + bottom - 44}" width="{width}" role="img" aria-label="{escape(caption)}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _finite(point: tuple[float, float]) -> bool:
    return all(value is not None and math.isfinite(value) for value in point)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value; where they are equal, a range around them."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers between two values."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (step * factor) >= 4 or factor == 1)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _line(places: Sequence[tuple[float, float] | None], colour: str) -> str:
    """A path through the places with a gap at each None; a dot for a point between two gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in places:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs if len(run) > 1)
    dots = [
        f'<circle cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="3" fill="{colour}"/>' for run in runs if len(run) == 1
    ]
    line = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>' if path else ""
    return line + "".join(dots)
