"""Exported files: equal to the model on any size, free of this package, and errors that say what is missing."""

import copy
import json
import resource
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from segmodel import ModelConfig, SegModel, export
from segmodel.common import cli
from segmodel.export import (
    ONNX_PACKAGES,
    TOLERANCE,
    card,
    compare,
    export_program,
    load_onnx,
    main,
    onnx_bytes,
    pt2_bytes,
)

# one filter of the smallest window: every part of the graph once
SMALL = {"depth": 18, "width": 2, "stem_width": 2, "rings": ((1, 1),), "label_hidden": 2, "label_pool": 3,
         "guidance_iterations": 1, "guidance_radius": 1, "guidance": "joint"}  # fmt: skip
SIZES = [(1, 1, 1), (2, 1, 50), (3, 17, 33), (1, 64, 64), (2, 65, 97)]


@pytest.fixture(scope="module")
def model() -> SegModel:
    torch.manual_seed(0)
    model = SegModel(3, ModelConfig(**SMALL)).eval()
    model.classes, model.palette = ("a", "b", "c"), np.zeros((3, 3), np.uint8)
    return model


@pytest.fixture(scope="module")
def short(model) -> SegModel:
    """The same with one block a stage: what the others would add to a graph are copies."""
    short = copy.deepcopy(model)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        setattr(short.backbone, name, getattr(short.backbone, name)[:1])
    return short


@pytest.fixture(scope="module")
def program(short):
    return export_program(short)


def test_the_model_itself_stays_as_it_is(monkeypatch):
    def stopped(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(torch.export, "export", stopped)
    model = SegModel(3, ModelConfig(**SMALL)).bfloat16().train()
    with pytest.raises(InterruptedError):
        export_program(model)
    assert all(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_the_graph_has_standard_operators_only(program):
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    names = {str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"}
    assert not [name for name in names if "segmodel" in name or "assert_scalar" in name]
    assert any("softmax" in name for name in names)  # the guidance CRF is inside


def test_pt2_equals_the_model_in_a_process_without_this_package(short, program, tmp_path):
    (tmp_path / "model.pt2").write_bytes(pt2_bytes(program, card(short)))
    inputs = [255 * torch.rand(n, 3, h, w) for n, h, w in SIZES]
    torch.save(inputs, tmp_path / "inputs.pt")
    code = (
        "import sys; sys.modules['segmodel'] = None\n"
        "import torch, json\n"
        "about = {'card.json': ''}\n"
        "run = torch.export.load('model.pt2', extra_files=about).module()\n"
        "with torch.inference_mode(): scores = [run(image) for image in torch.load('inputs.pt')]\n"
        "torch.save(scores, 'scores.pt'); print(json.loads(about['card.json'])['classes'])\n"
        "assert not [name for name in sys.modules if name.startswith('segmodel.')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(short.classes)
    with torch.inference_mode():
        for image, scores in zip(inputs, torch.load(tmp_path / "scores.pt"), strict=True):
            torch.testing.assert_close(scores, short(image), rtol=0, atol=TOLERANCE)


@pytest.mark.skipif(not all(find_spec(name) for name in ONNX_PACKAGES), reason="the extra [onnx] is not installed")
@pytest.mark.filterwarnings("ignore")  # those of the exporter about itself
def test_onnx_equals_the_model(short, program, tmp_path):
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(program, card(short)))
    checks = compare(short, load_onnx(tmp_path / "model.onnx"), SIZES, None)
    assert max(check.difference for check in checks) <= TOLERANCE


@pytest.fixture
def run_folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def test_the_command_keeps_only_files_that_equal_the_model(model, run_folder, tmp_path, capsys, monkeypatch):
    def exporting(run):
        serialised = lambda program, about: about["classes"].encode()  # noqa: E731
        monkeypatch.setitem(export.FORMATS, "pt2", (serialised, lambda path: run))

    monkeypatch.setattr(export, "export_program", lambda model, guidance: None)
    monkeypatch.setattr(export, "SIZES", SIZES[2:4])
    target = tmp_path / "model.pt2"
    given = [str(run_folder), "--format", "pt2", "--output", str(target)]
    exporting(model)
    assert cli.run("export", main, given) == 0
    assert "3 x 17 x 33" in capsys.readouterr().out
    content = target.read_bytes()
    assert cli.run("export", main, given) == 2
    assert "exists already (--overwrite replaces it)" in capsys.readouterr().err
    for run, message in (
        (lambda image: image.new_ones(1, 3, 17, 33), "expected scores (3, 3, 17, 33), got (1, 3, 17, 33)"),
        (lambda image: model(image) + 2e-4, "not kept"),
    ):
        exporting(run)
        assert cli.run("export", main, [*given, "--overwrite"]) == 1
        assert message in capsys.readouterr().err
        assert target.read_bytes() == content
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_ends_with_one_line(short, program, run_folder, tmp_path, capsys, monkeypatch):
    """PyTorch's own writing of a file would abort the process."""
    monkeypatch.setattr(export, "export_program", lambda model, guidance: program)
    given = [str(run_folder), "--format", "pt2", "--output", str(tmp_path / "model.pt2")]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        assert cli.run("export", main, given) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    errors = capsys.readouterr().err
    assert errors == f"segmodel.export: error: --output: {tmp_path}/model.pt2: cannot be written (File too large)\n"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_what_is_missing_is_named(run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    given = [str(run_folder), "--format", "onnx", "--output"]
    assert cli.run("export", main, [*given, str(tmp_path / "m.onnx")]) == 2
    assert "needs onnx, onnxscript, onnxruntime: python -m pip install 'segmodel[onnx]'" in capsys.readouterr().err
    assert cli.run("export", main, [*given, str(tmp_path / "no" / "m.onnx")]) == 2
    assert "expected a .onnx file in an existing folder" in capsys.readouterr().err


def test_a_head_whose_operators_depend_on_the_size_is_an_error():
    with pytest.raises(ValueError, match="head: 'ppm' has operators that depend on the image's size"):
        export_program(SegModel(2, ModelConfig(head="ppm", **{**SMALL, "rings": (), "patch_size": 1})))
