"""One self-contained HTML page of the whole reference: text, equations, code, misprints and figures. Needs docutils."""

import ast
import html
import inspect
import textwrap
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

from . import CONTENTS, MODULES, figures
from .errata import ERRATA, Erratum

TITLE = "Semantic Segmentation via Structured Patch Prediction, Context CRF and Guidance CRF"
FIGURES: dict[str, tuple[tuple[Callable[[], str], str], ...]] = {
    "bilinear_target": (
        (
            figures.belief_and_frequency,
            "Fig. 1 and 2 in numbers: twelve pixels, three cells. The histogram of Eq. 6 and the prediction that is "
            "best for the up-sampled loss: probability of the blue label.",
        ),
        (figures.ambiguous_targets, "Points (d) and (e): a smaller cell is asked fewer ambiguous questions."),
    ),
    "context_crf": (
        (figures.rings_and_areas, "Fig. 3: the further from the cell (black), the larger the area of one mean."),
    ),
    "guided_filter": (
        (figures.rows_of_w, "Rows of W for one pixel (dark): it listens on its own side of the edge only."),
    ),
    "guidance_crf": (
        (figures.coarse_and_refined, "What Algorithm 1 does to a coarse map."),
        (
            figures.functional_per_iteration,
            "The functional F: it never rises for Potts; nothing is promised otherwise.",
        ),
    ),
}

STYLE = """
:root{--ink:#222;--soft:#667;--line:#dde;--code:#f6f7f9;--link:#245a9c}
*{box-sizing:border-box}html{scroll-behavior:smooth}
body{margin:0;color:var(--ink);background:#fff;font:16px/1.55 Charter,Georgia,"DejaVu Serif",serif}
main,header,nav{max-width:84rem;margin:0 auto;padding:0 1.2rem}
h1{font-size:1.9rem;line-height:1.2;margin:2.2rem 0 .4rem}h2{margin:3rem 0 .6rem;border-bottom:2px solid var(--line)}
h3{font-size:1.05rem;margin:0 0 .4rem}h3 small{color:var(--soft);font-weight:normal}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
nav ul{columns:17rem;list-style:none;padding:0;font-size:.92rem}nav li{break-inside:avoid}
article{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,7fr);gap:1.8rem;align-items:start;padding:1.3rem 0;
border-top:1px solid var(--line)}article>*{min-width:0}
.loweralpha{list-style:lower-alpha}
pre,code,.literal{font:.78rem/1.45 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
h3 code{font-size:1rem}.rooms{margin:.1rem 0;color:var(--soft);overflow-wrap:anywhere}
.contents td,.contents th{padding:.15rem .55rem}
pre{background:var(--code);padding:.7rem .9rem;overflow-x:auto;border-radius:4px;margin:.6rem 0}
.literal{background:var(--code);padding:0 .2em;overflow-wrap:anywhere}
math{font-size:1.06em}math[display=block]{overflow-x:auto;max-width:100%;margin:.7rem 0}
figure{margin:1.5rem 0}figcaption{color:var(--soft);font-size:.92rem}svg{width:100%;height:auto;font-family:sans-serif}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;margin:1rem 0}
td,th{border:1px solid var(--line);padding:.35rem .55rem;text-align:left;vertical-align:top}th{background:var(--code)}
td p,th p{margin:0}.errata td{overflow-wrap:anywhere}.errata td:first-child{white-space:nowrap}dl dt{font-weight:bold}
@media screen and (max-width:56rem){article{grid-template-columns:minmax(0,1fr);gap:.4rem}
body{font-size:15px}h1{font-size:1.45rem}h2{font-size:1.25rem}.wide svg{min-width:33rem}
.errata,.errata tbody{display:block}.errata thead{display:none}
.errata tr{display:block;border:1px solid var(--line);margin:.7rem 0}
.errata td{display:block;border:0;padding:.2rem .6rem}.errata td::before{content:attr(data-name)": ";color:var(--soft)}}
@media print{body{font-size:9.5pt}article{display:block}pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:7.5pt}
figure,tr,h3{break-inside:avoid}h2,h3{break-after:avoid}a{color:inherit}nav ul{columns:3}
math[display=block]{overflow:visible}.errata{font-size:7.5pt}}
"""


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
    rooms = "".join(f'<p class="rooms">{in_its_file(other)}</p>' for other in elsewhere)
    code = html.escape(code_without_docstring(thing))
    heading = f"<h3><code>{name}</code>{label}</h3>{rooms}"
    words = typeset(thing.__doc__ or "")
    return f'<article id="{place}"><div>{heading}{words}</div><pre><code>{code}</code></pre></article>'


def drawing(figure: str, caption: str) -> str:
    """Return a figure with its caption."""
    return f'<figure><div class="wide">{figure}</div><figcaption>{html.escape(caption)}</figcaption></figure>'


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
    parts += [drawing(draw(), caption) for draw, caption in FIGURES.get(module_name, ())]
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
    chapters = "".join(f'<li><a href="#{name}">{name}</a></li>' for name in MODULES)
    package = import_module(__package__ or "")
    introduction = typeset((package.__doc__ or "").split("\n>>>")[0])
    body = "".join(section(name, stages) for name in MODULES)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>The paper in NumPy</title>'
        f"<style>{STYLE}</style></head><body><header><h1>{TITLE}</h1>{introduction}</header>"
        f"<nav><h2>Equations</h2>{contents_table()}<h2>Modules</h2><ul>{chapters}</ul></nav>"
        f"<main>{body}</main></body></html>"
    )
