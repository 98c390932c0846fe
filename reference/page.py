"""One HTML page of the whole reference: text, equations, code, misprints and figures. Needs docutils and Pygments."""

import ast
import html
import inspect
import json
import textwrap
from collections.abc import Callable, Sequence
from importlib import import_module, resources
from types import ModuleType
from typing import NamedTuple

from . import CONTENTS, MODULES, figures
from .errata import ERRATA, Erratum

TITLE = "Semantic Segmentation via Structured Patch Prediction, Context CRF and Guidance CRF"
ABSTRACT = r"""
Falong Shen, Rui Gan, Shuicheng Yan and Gang Zeng, CVPR 2017. A labelling x of an image I is the more probable, the
less its energy (Eq. 1), and the energy has three parts:

.. math:: E(x, I; \theta) = E_{local}(x, I; \theta) + E_{context}(x, I; \theta) + E_{edge}(x, I; \theta) \qquad (2)

- *Structured patch prediction* gives :math:`E_{local}`: each cell of a coarse map predicts n x n vectors of scores, not
  one, so that fewer cells are asked for a mixture of labels (Sec. 3).
- The *context CRF* gives :math:`E_{context}`: messages from features and labels around a cell, pooled over areas that
  grow with the distance (Sec. 4).
- The *guidance CRF* gives :math:`E_{edge}`: a mean field whose pairwise weights are those of a guided filter, so that
  labels follow the edges of the image (Sec. 5).

This page states every equation, with code that runs and four figures that move. The paper's misprints and open points
are listed at its end.
"""
STILL: dict[str, tuple[tuple[Callable[[], str], str], ...]] = {
    "bilinear_target": (
        (figures.ambiguous_targets, "Points (d) and (e): a smaller cell is asked fewer ambiguous questions."),
    ),
    "guidance_crf": (
        (
            figures.functional_per_iteration,
            "The functional F: it never rises for Potts; nothing is promised otherwise.",
        ),
    ),
}


class Live(NamedTuple):
    """A figure that JavaScript draws: its name there, what it shows, the equations that it is of, and its data."""

    name: str
    title: str
    entries: tuple[str, ...]
    caption: str
    data: Callable[[], object] = dict


LIVE = {
    "bilinear_target": Live(
        "cells", "What a cell is asked, and what it can say", ("Eq. 6",),
        "A line of 48 pixels with labels a and b, seen by cells of 16, 8 and 4 pixels. Bars: the histogram of Eq. 6, "
        "the share of b around each cell. Curve: the probability of b at each pixel, interpolated from the cells' best "
        "scores (least cross-entropy; 500 steps of fit_scores); below it what it says, b above one half.",
    ),
    "context_crf": Live(
        "rings", "Fig. 3: the further, the larger", ("Sec. 4.1",),
        "Each ring is nine boxes of side 2 radius + 1 around the cell (dark), their centres the distance apart; each "
        "box is averaged before the convolution reads it. Near ring: solid lines; far ring: dashed. Counts hold away "
        "from the border; the middle boxes are included.",
    ),
    "guided_filter": Live(
        "weights", "Eq. 12: the weights of one pixel", ("Eq. 12",),
        "Click a pixel, or move it with the arrow keys. The map shows the row of W that belongs to it, shaded by the "
        "square root of |w_ij|. At a large epsilon edges no longer matter; near the border the three readings differ.",
        figures.weights_data,
    ),
    "guidance_crf": Live(
        "algorithm", "Algorithm 1, step by step", ("Algorithm 1",),
        "Scores of cells of 4 pixels, interpolated, are refined with the picture. Labels: a ground (light), "
        "b ring (middle), c bars (dark); wrong pixels are black. F is what Algorithm 1 makes smaller.",
        figures.algorithm_data,
    ),
}  # fmt: skip
APPENDIX = "arrays"
"""The module that comes last on the page: the vocabulary of the others, not the paper."""


def _file(name: str) -> str:
    return (resources.files(__package__ or "") / name).read_text(encoding="utf-8")


def highlighted(code: str) -> str:
    """Return Python as HTML, a span a line: a long line is broken and goes on further to the right."""
    lexers, formatters = import_module("pygments.lexers"), import_module("pygments.formatters")
    marked = import_module("pygments").highlight(code, lexers.PythonLexer(), formatters.HtmlFormatter(nowrap=True))
    lines = zip(code.splitlines(), marked.splitlines(), strict=True)
    return "".join(
        f'<span class="line" style="--indent:{len(plain) - len(plain.lstrip())}">{line}</span>' for plain, line in lines
    )


def typeset(docstring: str) -> str:
    """Return a docstring as HTML; its LaTeX becomes MathML. Anything that does not parse raises a ValueError."""
    roles, literal = import_module("docutils.parsers.rst.roles"), import_module("docutils.nodes").literal
    for role in ("func", "data"):
        roles.register_generic_role(role, literal)
    options = {"math_output": "MathML", "syntax_highlight": "none", "halt_level": 2, "traceback": True}
    try:
        publish = import_module("docutils.core").publish_parts
        return str(publish(inspect.cleandoc(docstring), writer="html5", settings_overrides=options)["body"])
    except Exception as error:
        raise ValueError(f"docstring: expected reStructuredText, got {docstring[:60]!r}...: {error}") from error


def code_without_docstring(thing: object) -> str:
    """Return the source of a function or class without its docstring, which stands beside it."""
    source = textwrap.dedent(inspect.getsource(thing))  # type: ignore[arg-type]
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    first, lines = definition.body[0], source.splitlines()
    if ast.get_docstring(definition) is not None and first.end_lineno is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(lines)


def members(module: ModuleType) -> list[tuple[str, object]]:
    """Return the public functions and classes that a module defines, in the order of its text."""
    found = [
        (name, thing)
        for name, thing in vars(module).items()
        if (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    ]
    return sorted(found, key=lambda pair: inspect.getsourcelines(pair[1])[1])  # type: ignore[arg-type]


def in_its_file(dotted: str) -> str:
    """Return the name of an operator or a module of the model, with the file that holds it."""
    file = f"segmodel/{dotted.rpartition('.')[0].replace('.', '/')}.py"
    return f"<code>{dotted}</code> in <code>{file}</code>"


def contents_table() -> str:
    """Return the table of contents: a row an equation, its oracle linked, its operator and its module named."""
    rows = ""
    for entry, (oracle, *others) in CONTENTS.items():
        names = "".join(f"<td>{f'<code>{other}</code>' if other else ''}</td>" for other in others)
        rows += f'<tr><th>{entry}</th><td><a href="#{oracle}"><code>{oracle}</code></a></td>{names}</tr>'
    head = "<tr><th></th><th>here</th><th>operator</th><th>model, training</th></tr>"
    return f'<div class="wide"><table class="contents">{head}{rows}</table></div>'


def article(module: str, name: str, thing: object) -> str:
    """Return one function: what it says, and beside it the code."""
    place = f"{module}.{name}"
    found = {entry: where for entry, where in CONTENTS.items() if where.oracle == place}
    label = f" <small>{', '.join(found)}</small>" if found else ""
    elsewhere = dict.fromkeys(other for where in found.values() for other in where[1:] if other)
    rooms = "".join(f'<p class="rooms" id="{place}:{other}">{in_its_file(other)}</p>' for other in elsewhere)
    code = highlighted(code_without_docstring(thing))
    heading = f"<h3><code>{name}</code>{label}</h3>{rooms}"
    words = typeset(thing.__doc__ or "")
    return f'<article id="{place}"><div>{heading}{words}</div><pre><code>{code}</code></pre></article>'


def drawing(figure: str, caption: str) -> str:
    """Return a figure with its caption."""
    return f'<figure><div class="wide still">{figure}</div><figcaption>{html.escape(caption)}</figcaption></figure>'


def live(figure: Live) -> str:
    """Return the place of a live figure, with its data and with links to oracle, operator and module."""
    links = []
    for entry in figure.entries:
        oracle, *others = CONTENTS[entry]
        named = [f'<a href="#{oracle}"><code>{oracle}</code></a>']
        named += [f'<a href="#{oracle}:{other}"><code>{other}</code></a>' for other in others if other]
        links.append(f"{entry}: {', '.join(named)}")
    data = json.dumps(figure.data()).replace("</", "<\\/")
    return (
        f'<figure class="live" id="live-{figure.name}" data-figure="{figure.name}">'
        f"<figcaption><h3>{html.escape(figure.title)}</h3>{html.escape(figure.caption)}<br>{'; '.join(links)}"
        f'</figcaption><p class="waiting">This figure needs JavaScript.</p>'
        f'<script type="application/json">{data}</script></figure>'
    )


def errata_table() -> str:
    """Return the table of misprints; on a phone every row becomes a card."""
    head = "".join(f"<th>{name}</th>" for name in Erratum._fields)
    rows = "".join(
        "<tr>"
        + "".join(f'<td data-name="{n}">{html.escape(v)}</td>' for n, v in zip(row._fields, row, strict=True))
        + "</tr>"
        for row in ERRATA
    )
    return f'<div class="wide"><table class="errata"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def section(module_name: str, stages: Sequence[tuple[str, str, str]]) -> str:
    """Return one module: its own words, its figures, and its functions."""
    module = import_module(f".{module_name}", __package__)
    title, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n")
    parts = [f'<section id="{module_name}"><h2>{html.escape(title.rstrip("."))}</h2>', typeset(rest)]
    parts += [live(LIVE[module_name])] if module_name in LIVE else []
    parts += [drawing(draw(), caption) for draw, caption in STILL.get(module_name, ())]
    if module_name == "head" and stages:
        caption = "Fig. 4, drawn from the live model: the shapes are those of one forward pass."
        parts.append(drawing(figures.architecture(stages), caption))
    if module_name == "errata":
        parts.append(errata_table())
    else:
        parts += [article(module_name, name, thing) for name, thing in members(module)]
    return "".join(parts) + "</section>"


def render(stages: Sequence[tuple[str, str, str]] = ()) -> str:
    """Return the page; ``stages`` of a live model give Fig. 4, see :func:`figures.architecture`."""
    order = [name for name in MODULES if name != APPENDIX] + [APPENDIX]
    chapters = "".join(f'<li><a href="#{name}">{name}</a></li>' for name in order)
    moving = "".join(
        f'<li><a href="#live-{figure.name}">{html.escape(figure.title)}</a></li>' for figure in LIVE.values()
    )
    package = import_module(__package__ or "")
    conventions = typeset((package.__doc__ or "").split("\n>>>")[0])
    body = "".join(section(name, stages) for name in order)
    script = "".join(_file(name) for name in ("arithmetic.js", "live.js", "figures.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>The paper in NumPy</title>'
        f"<style>{_file('page.css')}{_file('live.css')}</style></head><body>"
        f'<header id="top"><h1>{TITLE}</h1>{typeset(ABSTRACT)}</header>'
        f"<nav><h2>Figures that move</h2><ul>{moving}</ul><h2>Equations</h2>{contents_table()}"
        f"<h2>Modules</h2>{conventions}<ul>{chapters}</ul></nav>"
        f'<main>{body}</main><a class="top" href="#top">\u2191 top</a><script>{script}</script></body></html>'
    )
