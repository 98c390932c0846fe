"""HTML pages in one file: pictures and curves inside, light or dark.

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
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Curve = Sequence[tuple[float, float]]
RISE, FALL, NEITHER = "#3f9a55", "#c4373f", "#777c85"
"""Of an interval above its start, below it, and around it."""
COLOURS = ("#3b76c4", "#d0632b", "#3f9a55", "#b0478f", "#8a7a22", "#7a5fc7", "#2a9d9d", "#c4373f", "#777c85", "#a06a3c")
"""Of the curves, in turn; legible on white and on black."""
STYLE = (resources.files("segmodel.common") / "report.css").read_text(encoding="utf-8")


def page(title: str, blocks: Iterable[str], *, style: str = "") -> str:
    """The whole HTML document; ``style``: rules beside those of all pages."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
    )
    text = head + "\n".join(blocks) + "\n</body>\n</html>\n"
    return text.encode("utf-8", "backslashreplace").decode()  # a file name may hold what is no text


def heading(text: str, *, level: int = 2) -> str:
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def folded(title: str, *blocks: str) -> str:
    """Blocks that a click on their title shows."""
    return f"<details><summary>{escape(title)}</summary>\n" + "\n".join(blocks) + "\n</details>"


def swatches(names: Sequence[str], colours: np.ndarray) -> str:
    """Names, each beside its colour: ``colours`` (N, 3), RGB in 0..255."""
    shown = (
        f'<span><i style="background:rgb({red},{green},{blue})"></i>{escape(name)}</span>'
        for name, (red, green, blue) in zip(names, np.asarray(colours).tolist(), strict=True)
    )
    return f'<p class="legend">{" ".join(shown)}</p>'


def heat(names: Sequence[str], matrix: np.ndarray, *, corner: str, caption: str = "") -> str:
    """A square table ``(N, N)`` of shares in 0..1 as percentages, the darker the larger; NaN is a dash."""
    head = "".join(f"<th><span>{escape(name)}</span></th>" for name in names)
    rows = []
    for name, row in zip(names, matrix.tolist(), strict=True):
        cells = "".join(
            "<td>–</td>"  # noqa: RUF001
            if math.isnan(share)
            else f'<td style="background:rgba(59,118,196,{0.75 * share:.3f})">{100 * share:.0f}</td>'
            for share in row
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    body = "\n".join(rows)
    table = (
        f'<table class="heat"><thead><tr><th>{escape(corner)}</th>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
    )
    return f"<figure>{table}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(pixels: np.ndarray, caption: str = "") -> str:
    """Pixels ``(H, W, 3)`` or ``(H, W)`` uint8 as a PNG inside the page; a click shows it in its full size.

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
    zoom = f'<details class="zoom"><summary>{image}</summary></details>'
    return f"<figure>{zoom}<figcaption>{escape(caption)}</figcaption></figure>"


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


def curves(
    series: Mapping[str, Curve],
    *,
    x_label: str = "",
    y_label: str = "",
    caption: str = "",
    least: float = 0.0,
    powers: bool = False,
) -> str:
    """A line chart of named series of points ``(x, y)``; a point that is not finite leaves a gap.

    Args:
        least: what the y axis spans at least, so that noise does not fill it.
        powers: x is the logarithm to base 10 of what is written on its axis.
    """
    points = [point for curve in series.values() for point in curve if _finite(point)]
    if not points:
        return f"<figure><figcaption>{escape(caption)} (no points)</figcaption></figure>"
    x_low, x_high = _limits([x for x, _ in points])
    y_low, y_high = _limits([y for _, y in points], least=least)
    left, right, top, bottom, end = 58, 628, 12, 296, 340 + 18 * len(series)  # of the frame; end of the legend

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return left + (right - left) * across, bottom - (bottom - top) * up

    def text(position: str, words: str, anchor: str = "middle") -> str:
        return f'<text {position} text-anchor="{anchor}">{escape(words)}</text>'

    parts = []
    for value in _ticks(y_low, y_high):
        _, y = place(x_low, value)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="var(--line)"/>')
        parts.append(text(f'x="{left - 6}" y="{y + 4:.1f}"', f"{value:g}", "end"))
    for value in _ticks(x_low, x_high):
        x, _ = place(value, y_low)
        parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="var(--faint)"/>')
        parts.append(text(f'x="{x:.1f}" y="{bottom + 18}"', f"{10**value:,.0f}" if powers else f"{value:g}"))
    for index, (name, curve) in enumerate(series.items()):
        colour, y = COLOURS[index % len(COLOURS)], 340 + 18 * index
        parts.append(_line([place(*point) if _finite(point) else None for point in curve], colour))
        parts.append(f'<path d="M{left} {y}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(text(f'x="{left + 32}" y="{y + 4}"', name, "start"))
    parts.append(text(f'x="{(left + right) / 2:.0f}" y="{bottom + 34}"', x_label))
    parts.append(text(f'transform="translate(12 {(top + bottom) / 2:.0f}) rotate(-90)"', y_label))
    box = f'viewBox="0 0 640 {end}" width="640" role="img" aria-label="{escape(caption)}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


class Dots(NamedTuple):
    """A row of ``dots``: the value of ``name``, the values that it is the mean of, and an interval of a change.

    whiskers: the ends of the interval, and the value that it starts from; no bar where it is None or not finite.
    note: words beside the name.
    """

    name: str
    value: float
    parts: Sequence[float] = ()
    whiskers: tuple[float, float, float] | None = None
    note: str = ""


def dots(rows: Sequence[Dots], caption: str = "") -> str:
    """A chart of values side by side, a row each with its name above it; as wide as the page, letters keep their size.

    A bar is green or red where it lies above or below the tick that it starts from, grey where around it.
    """
    known = [value for row in rows for value in (row.value, *row.parts, *(row.whiskers or ())) if math.isfinite(value)]
    if not known:
        return f"<figure><figcaption>{escape(caption)} (no points)</figcaption></figure>"
    low, high = _limits(known, least=0.01)

    def across(value: float) -> str:
        return f"{2 + 96 * (value - low) / (high - low):.2f}%"

    tall, parts = 44 * len(rows), []
    for value in _ticks(low, high):
        parts.append(f'<line x1="{across(value)}" x2="{across(value)}" y2="{tall}" stroke="var(--line)"/>')
        parts.append(f'<text x="{across(value)}" y="{tall + 18}" text-anchor="middle">{value:g}</text>')
    for number, row in enumerate(rows):
        top, y, colour = 44 * number, 44 * number + 32, NEITHER
        note = f'<tspan dx="8" fill="var(--faint)">{escape(row.note)}</tspan>' if row.note else ""
        parts.append(f'<text x="0" y="{top + 16}">{escape(row.name)}{note}</text>')
        if row.whiskers and all(map(math.isfinite, row.whiskers)):
            left, right, start = row.whiskers
            colour = RISE if left > start else FALL if right < start else NEITHER
            parts.append(f'<line x1="{across(left)}" x2="{across(right)}" y1="{y}" y2="{y}" stroke="{colour}" '
                         'stroke-width="3"/>')  # fmt: skip
            parts.append(f'<line x1="{across(start)}" x2="{across(start)}" y1="{y - 8}" y2="{y + 8}" '
                         'stroke="var(--ink)" stroke-width="2"/>')  # fmt: skip
        for value, radius, paint in [(row.value, 6, colour), *((part, 2.5, "var(--ink)") for part in row.parts)]:
            if math.isfinite(value):
                parts.append(f'<circle cx="{across(value)}" cy="{y}" r="{radius}" fill="{paint}"/>')
    box = f'style="width:100%;height:{tall + 24}px" role="img" aria-label="{escape(caption)}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _finite(point: tuple[float, float]) -> bool:
    return all(value is not None and math.isfinite(value) for value in point)


def _limits(values: Sequence[float], *, least: float = 0.0) -> tuple[float, float]:
    """Lowest and highest value; where they are equal or less than ``least`` apart, a range around them.

    It does not reach below 0 if no value does.
    """
    low, high = min(values), max(values)
    if high - low < least:
        start = (low + high - least) / 2
        start = max(start, 0.0) if low >= 0 else start
        return start, start + least
    if high - low > 1e-300:  # what can be divided
        return low, high
    half = abs(low) / 2 if abs(low) > 1e-300 else 0.5
    return low - half, high + half


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers between two values."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (step * factor) >= 4 or factor == 1)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _line(places: Sequence[tuple[float, float] | None], colour: str) -> str:
    """A path through the places with a gap at each None; a dot for a point between two gaps."""
    runs = [list(filter(None, group)) for there, group in groupby(places, bool) if there]
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs if len(run) > 1)
    line = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>' if path else ""
    dots = [run[0] for run in runs if len(run) == 1]
    return line + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in dots)
