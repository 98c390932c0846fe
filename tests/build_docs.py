"""Builds the documentation: python tests/build_docs.py FOLDER (extra [docs]; tox -e docs).

index.html leads to the API, made of the docstrings; every page links to paper.html, the paper's text, code and figures.
"""

import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pdoc

import segmodel
from segmodel.reference.page import render

MODULES = ("segmodel", "kernels", "inference.refine", "inference.refine_labels",
           "inference.refine_map", "inference.comparison", "inference.refinement",
           "inference.views", "evaluation.tuning", "model.config",
           "model.network", "model.head", "model.patch_prediction", "model.context_crf", "model.upsampling",
           "model.guidance_crf", "model.guided_filter", "model.backbone", "model.resnet", "model.timm_backbone",
           "model.context_head", "model.peers", "model.registry", "model.store", "training.objective",
           "training.optimisation", "evaluation.metrics", "evaluation.boundary", "data", "export")  # fmt: skip
"""What is there for other programs; names that load on first use would hide the modules from pdoc."""
TEMPLATE = """{% extends "default/module.html.jinja2" %}
{% block nav_title %}{% set up = "../" * module.modulename.count(".") %}
<p><a href="{{ up }}paper.html"><b>The paper in NumPy</b></a></p>
<p>{% for name in all_modules %}<a href="{{ up }}{{ name.replace(".", "/") }}.html">{{ name.split(".")[-1] }}</a>
{% endfor %}</p>{{ super() }}{% endblock %}
{% block nav_submodules %}{% endblock %}
"""


def build(folder: Path) -> None:
    for name in segmodel.__all__:  # pdoc does not see names that load on first use
        vars(segmodel)[name] = getattr(segmodel, name)
    stages = import_module("segmodel.reference.__main__").live_stages()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "paper.html").write_text(render(stages), encoding="utf-8")
    with TemporaryDirectory() as templates:
        Path(templates, "module.html.jinja2").write_text(TEMPLATE, encoding="utf-8")
        pdoc.render.configure(docformat="google", math=True, template_directory=Path(templates), search=True)
        pdoc.pdoc("segmodel", *(f"segmodel.{name}" for name in MODULES), output_directory=folder)
    print(f"{folder}: {len(list(folder.rglob('*.html')))} pages")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
