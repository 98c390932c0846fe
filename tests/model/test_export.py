"""Exported files: equal to their source on any size, free of this package, and errors that say what is missing."""

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

from segmodel import ModelConfig, SegModel
from segmodel.common import cli
from segmodel.experiments import exported
from segmodel.experiments.exported import (
    FORMATS,
    ONNX_PACKAGES,
    TOLERANCE,
    Source,
    compare,
    export_program,
    load_onnx,
    of_model,
    of_refinement,
    onnx_bytes,
    pt2_bytes,
)
from segmodel.export import main
from segmodel.inference.refinement_module import RefinementModule
from segmodel.model.untrained_crf import Refinement, Resolved, UntrainedCRF, crf_from_scores

# one filter of the smallest window: every part of the graph once
SMALL = {"depth": 18, "width": 2, "stem_width": 2, "rings": ((1, 1),), "label_hidden": 2, "label_pool": 3,
         "guidance_iterations": 1, "guidance_radius": 1, "guidance": "joint"}  # fmt: skip
SIZES = exported.SIZES[:5]
OWN = Resolved(stride=4, radius=2, eps=1.0, weight=4.0, balance=0.5, iterations=1)
needs_onnx = pytest.mark.skipif(not all(find_spec(name) for name in ONNX_PACKAGES),
                                reason="the extra [onnx] is not installed")  # fmt: skip


@pytest.fixture(scope="module")
def model() -> SegModel:
    torch.manual_seed(0)
    model = SegModel(3, ModelConfig(**SMALL)).eval()
    model.classes, model.palette = ("a", "b", "c"), np.zeros((3, 3), np.uint8)
    return model


@pytest.fixture(scope="module")
def source(model) -> Source:
    """The same with one block a stage: what the others would add to a graph are copies."""
    short = copy.deepcopy(model)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        setattr(short.backbone, name, getattr(short.backbone, name)[:1])
    return of_model(short)


@pytest.fixture(scope="module")
def program(source):
    return export_program(source)


@pytest.fixture
def once(program, monkeypatch):
    """The program of the fixture, in place of another that would be the same."""
    monkeypatch.setattr(exported, "export_program", lambda source: program)


def test_the_model_itself_stays_as_it_is():
    model = SegModel(3, ModelConfig(**SMALL)).bfloat16().train()
    assert not of_model(model).graph.model.training
    assert all(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_the_graph_has_standard_operators_only(program):
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    names = {str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"}
    assert not [name for name in names if "segmodel" in name or "assert_scalar" in name]
    assert any("softmax" in name for name in names)  # the guidance CRF is inside


def test_pt2_equals_the_model_in_a_process_without_this_package(source, once, tmp_path):
    (tmp_path / "model.pt2").write_bytes(pt2_bytes(source))
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
    assert done.stdout.strip() == '["a", "b", "c"]'
    with torch.inference_mode():
        for image, scores in zip(inputs, torch.load(tmp_path / "scores.pt"), strict=True):
            torch.testing.assert_close(scores, source.source(image), rtol=0, atol=1e-4)


def test_guidance_chosen_on_pictures_is_exported_where_no_picture_decides():
    torch.manual_seed(0)
    model = SegModel(3, ModelConfig(**SMALL)).eval()
    model.head.chosen = UntrainedCRF(Refinement(radius=2, weight=5.0, balance=0.5, iterations=2))
    own = of_model(model)  # what its graph consists of is exported in the other tests
    with torch.inference_mode():
        image = 255 * torch.rand(1, 3, 50, 61)
        assert torch.equal(own.graph(image), model(image))
        assert not torch.equal(own.graph(image), model(image, guidance=False))
    model.head.chosen = crf_from_scores
    of_model(model, guidance=False)
    with pytest.raises(ValueError, match="follow from each picture's scores, which no graph can hold: expected --guid"):
        of_model(model)


def sizes_of(path: Path) -> dict[str, list[int | str]]:
    """Of each input and output of an ONNX file the sizes: numbers, or names."""
    import onnx

    graph = onnx.load(path).graph
    assert len(graph.node) < 600  # there were thousands, of unrolled windows
    return {item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
            for item in (*graph.input, *graph.output)}  # fmt: skip


@needs_onnx
def test_onnx_equals_the_model(source, tmp_path):
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(source))
    checks = compare(source, load_onnx(tmp_path / "model.onnx"), SIZES)
    assert max(check.share for check in checks) <= TOLERANCE
    image = ["batch", 3, "height", "width"]
    assert sizes_of(tmp_path / "model.onnx") == {"image": image, "scores": image}


@needs_onnx
@pytest.mark.parametrize("labels", [False, True])
def test_onnx_equals_the_refinement(labels, tmp_path):
    source = of_refinement(OWN, labels=labels)
    (tmp_path / "refine.onnx").write_bytes(onnx_bytes(source))
    run = load_onnx(tmp_path / "refine.onnx")
    checks = compare(source, run, SIZES)  # scores of an eighth of the picture, of its blocks, of its size, and larger
    assert max(check.share for check in checks) <= (2 if labels else 1) * TOLERANCE
    sizes = sizes_of(tmp_path / "refine.onnx")
    assert sizes["scores"] == ["batch", "classes", "rows", "columns"]
    assert sizes["image"] == ["batch", 3, "height", "width"]
    result = ["batch", "height", "width"] if labels else ["batch", "classes", "height", "width"]
    assert sizes["labels" if labels else "refined"] == result
    inputs = torch.randn(1, 3, 6, 7), torch.rand(1, 3, 24, 28)
    assert run(*inputs).dtype == (torch.uint8 if labels else torch.float32)


@pytest.mark.parametrize("stride", [1, 3, 4])
@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_the_module_is_the_refinement_whatever_the_sizes(stride, balance):
    own = Resolved(stride=stride, radius=2, eps=1.0, weight=4.0, balance=balance, iterations=2)
    source, module = of_refinement(own), RefinementModule(own)
    generator = torch.Generator().manual_seed(0)
    for size in exported.SIZES[:8]:
        scores, image = (x.double() for x in source.draw(size, generator))
        torch.testing.assert_close(module(scores, image), source.source(scores, image), rtol=0, atol=1e-9)


@pytest.fixture
def run_folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def test_the_command_keeps_only_files_that_equal_the_model(model, run_folder, tmp_path, capsys, monkeypatch):
    def exporting(run):
        serialised = lambda source: source.about["classes"].encode()  # noqa: E731
        monkeypatch.setitem(FORMATS, "pt2", (serialised, lambda path: run))

    monkeypatch.setattr("segmodel.export.SIZES", SIZES[2:4])
    target = tmp_path / "model.pt2"
    given = [str(run_folder), "--format", "pt2", "--output", str(target)]
    exporting(model)
    assert cli.run("export", main, given) == 0
    assert "3 x 17 x 33" in capsys.readouterr().out
    content = target.read_bytes()
    assert cli.run("export", main, given) == 2
    assert "exists already (--overwrite replaces it)" in capsys.readouterr().err
    largest = max(float(model(torch.full((1, 3, 9, 9), 128.0)).abs().max()), 1.0)
    for run, message in (
        (lambda image: image.new_ones(1, 3, 17, 33), "expected scores (3, 3, 17, 33), got (1, 3, 17, 33)"),
        (lambda image: model(image) + 9 * TOLERANCE * largest, "(--tolerance): not kept"),
    ):
        exporting(run)
        assert cli.run("export", main, [*given, "--overwrite"]) == 1
        assert message in capsys.readouterr().err
        assert target.read_bytes() == content
    assert not list(tmp_path.glob("*.partial"))
    assert cli.run("export", main, [*given, "--overwrite", "--tolerance", "1e-3"]) == 0


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_the_tolerance_is_a_share_of_the_largest_score(size):
    """Rounding grows with the scores: those of 300 may differ by 300 times as much."""
    scores = size * torch.tensor([1.0, -0.5, 0.2])[:, None, None].expand(1, 3, 4, 4)
    plain = Source(torch.nn.Identity(), lambda image: scores, {}, {}, lambda size, generator: (None,), "scores", {})
    (check,) = compare(plain, lambda image: scores - 1e-6 * size, [(1, 4, 4)])
    assert check.share == pytest.approx(1e-6, rel=0.1)
    assert check.changed == 0


def test_a_label_may_be_another_where_two_scores_are_equal():
    scores = torch.tensor([[2.0, 1.0, 0.0], [2.0, 2.0 - 2e-7, 1.0]]).T[None, :, None]  # [1, 3, 1, 2]
    labels = Source(torch.nn.Identity(), lambda image: scores, {}, {}, lambda size, generator: (None,), "labels", {})
    best = torch.tensor([[[0, 0]]], dtype=torch.uint8)
    for changed, share in ((1, 1e-7), (2, 0.5)):
        got = best.clone()
        got[..., 1] = changed
        (check,) = compare(labels, lambda image: got, [(1, 1, 2)])  # noqa: B023
        assert (check.changed, check.share) == (1, pytest.approx(share, rel=0.3))


def test_a_full_disk_ends_with_one_line(once, run_folder, tmp_path, capsys):
    """PyTorch's own writing of a file would abort the process."""
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
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda name: None)
    given = [str(run_folder), "--format", "onnx", "--output"]
    assert cli.run("export", main, [*given, str(tmp_path / "m.onnx")]) == 2
    assert "needs onnx, onnxscript, onnxruntime: python -m pip install 'segmodel[onnx]'" in capsys.readouterr().err


def test_a_refinement_has_all_of_its_settings(tmp_path, capsys, monkeypatch):
    found = []
    serialised = lambda source: (found.append(source), b"graph")[1]  # noqa: E731
    monkeypatch.setitem(FORMATS, "pt2", (serialised, lambda path: found[-1].source))
    monkeypatch.setattr("segmodel.export.SIZES", SIZES[2:4])
    settings, target = tmp_path / "tuned.json", tmp_path / "refine.pt2"
    settings.write_text(json.dumps({"settings": {"stride": 2, "radius": 3, "weight": 5.0, "balance": 0.25}}))
    given = ["--refine", "--format", "pt2", "--output", str(target)]
    assert cli.run("export", main, [*given, "--radius", "2"]) == 2
    assert "expected --stride, --weight, --balance, --iterations too, or --settings" in capsys.readouterr().err
    assert cli.run("export", main, [*given, "--settings", str(settings), "--iterations", "2"]) == 0
    assert json.loads(found[0].about["settings"]) == {
        "stride": 2, "radius": 3, "eps": 1.0, "weight": 5.0, "balance": 0.25, "iterations": 2,
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "the refinement with stride 2, radius 3, eps 1.0, weight 5.0, balance 0.25, iterations 2" in out
