"""The Triton kernels: which backend is chosen, every kernel in Triton's interpreter, and compiled without a GPU.

Interpreting and compiling exclude each other in one process, and both differ from the process of the tests: each runs
as a script of its own (triton_interpreted.py, triton_compiled.py).
"""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segmodel.kernels import backend, guidance_crf, guided_filter

pytest.importorskip("triton", reason="Triton exists for Linux only, and this machine has none")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = HERE / "triton_resources.json"


def run(script: str, *arguments: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE.parent))), **environment},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


# A process each; those of the last are short.
KERNELS = [
    ("guide_moments",), ("filter_and_adjoint",), ("wide_filter_and_adjoint",),
    ("moments_of_many_channels",), ("many_channels_and_adjoint", "tall"),
    ("update", "update_backward", "guidance_crf", "variable"),
]  # fmt: skip


@pytest.mark.parametrize("names", KERNELS, ids=" ".join)
def test_in_the_interpreter(names: tuple[str, ...]) -> None:
    said = run("triton_interpreted.py", "25", *names, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert said.splitlines() == [f"{name} passed" for name in names]


@pytest.mark.gpu
@pytest.mark.parametrize("names", KERNELS, ids=" ".join)
def test_on_the_gpu_equals_the_oracle(names: tuple[str, ...]) -> None:
    said = run("triton_interpreted.py", "1000", *names, TRITON_INTERPRET="0")
    assert said.splitlines() == [f"{name} passed" for name in names]


def test_compiled_kernels_do_not_spill(request: pytest.FixtureRequest) -> None:
    """sm_80, sm_90, sm_100 and gfx942; the table in the repository must be what the compiler says today."""
    measured = json.loads(run("triton_compiled.py"))
    for name, entry in measured["kernels"].items():
        assert entry["spills"] == 0, (name, entry)
    stored = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    if stored.get("triton") != measured["triton"] or os.environ.get("SEGMODEL_REFRESH_TABLES"):
        TABLE.write_text(json.dumps(measured, indent=1) + "\n")
        stored = measured
    assert stored == measured, "run with SEGMODEL_REFRESH_TABLES=1 to accept the new resource table"


def test_triton_where_it_cannot_run_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    scores, guide = torch.randn(1, 2, 4, 5), 255 * torch.rand(1, 3, 4, 5)
    for function in (guided_filter, guidance_crf):
        with pytest.raises(ValueError, match=r"backend: 'triton' cannot run here: the tensor is on cpu.* 'auto'$"):
            function(scores, guide, backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="here: its kernels have no float64"):
        guided_filter(scores.double(), guide, backend="triton")
    with pytest.raises(ValueError, match=r"^backend: .* no gradient for the guide"):
        guided_filter(scores, guide.requires_grad_(), backend="triton")
    with pytest.raises(ValueError, match="here: its kernels take images of at most 134217728 pixels"):
        guided_filter(torch.empty(1, 1, 1, 1).expand(1, 1, 2**14, 2**13 + 1), guide, backend="triton")
    monkeypatch.setattr(backend, "TRITON", False)
    with pytest.raises(ValueError, match="here: the package triton is not installed"):
        guided_filter(scores, guide, backend="triton")
    assert backend.choose("auto", scores) != "triton"


def test_the_environment_variable_stands_in_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    scores = torch.zeros(1, 2, 4, 5)
    monkeypatch.setenv("SEGMODEL_BACKEND", "triton")
    with pytest.raises(ValueError, match=r"run here: .*; use 'torch' or 'auto' without SEGMODEL_BACKEND=triton$"):
        backend.choose("auto", scores)
    assert backend.choose("torch", scores) != "triton"
    monkeypatch.setenv("SEGMODEL_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"SEGMODEL_BACKEND: expected one of"):
        backend.choose("auto", scores)
    monkeypatch.setenv("SEGMODEL_BACKEND", "torch")
    assert backend.choose("auto", scores) != "triton"


def test_kernels_are_launched_on_the_gpu_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a second GPU: every door to the kernels enters the device of its first argument."""
    from segmodel.kernels import triton_guidance_crf, triton_guided_filter, triton_moments

    entered = []
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: entered.append(x) or nullcontext())
    scores, guide, planes = torch.empty(0, 2, 3, 4), torch.empty(0, 3, 3, 4), torch.empty(0, 12, 3, 4)
    weight, total = torch.tensor(2.0), torch.empty(0, 2, 3, 4)
    triton_moments.moments(guide, 1, 1.0)
    triton_guided_filter.filter_planes(scores, planes, 1, "clipped", False)
    triton_guidance_crf.update(scores, scores, weight, True, True, total)
    triton_guidance_crf.update_backward(scores, scores, weight, True, total)
    assert [id(x) for x in entered] == [id(guide), *[id(scores)] * 3]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_the_second_gpu() -> None:
    scores, guide = torch.randn(1, 2, 40, 50), 255 * torch.rand(1, 3, 40, 50)
    expected = guidance_crf(scores, guide, backend="torch")
    found = guidance_crf(scores.to("cuda:1"), guide.to("cuda:1"), backend="triton")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_auto_takes_triton_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a tensor on a GPU: only its device and dtype are asked for."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("SEGMODEL_BACKEND", raising=False)
    on_gpu = SimpleNamespace(device=SimpleNamespace(type="cuda"), dtype=torch.float32, shape=(1, 1, 4, 5))
    assert backend.choose("auto", on_gpu) == "triton"
    assert backend.choose("triton", on_gpu) == "triton"
    assert backend.choose("torch", on_gpu) != "triton"
    assert backend.choose("auto", SimpleNamespace(**vars(on_gpu) | {"dtype": torch.float64})) != "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.choose("auto", torch.zeros(1, 1, 1, 1)) != "triton"
    assert backend.choose("triton", torch.zeros(1, 1, 1, 1)) == "triton"


def test_imports_without_triton() -> None:
    """A finder that refuses triton stands for macOS and Windows."""
    code = """
import importlib.abc, importlib.util, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "triton":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "triton" else real(name, *a)
import torch, segmodel.kernels as kernels
scores, guide = torch.randn(1, 2, 4, 5, requires_grad=True), 255 * torch.rand(1, 3, 4, 5)
kernels.guidance_crf(scores, guide).sum().backward()
assert not [name for name in sys.modules if name.startswith("segmodel.kernels.triton")]
"""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (75, 125), (128, 131)])
def test_on_the_gpu_equals_the_torch_path(dtype: torch.dtype, size: tuple[int, int]) -> None:
    for radius in (0, 3, 7, 8, 31):
        scores = torch.randn(2, 21, *size, device="cuda").to(dtype).requires_grad_()
        guide, mu = 255 * torch.rand(2, 3, *size, device="cuda"), (1 - torch.eye(21, device="cuda")).requires_grad_()
        for compatibility in (None, mu):
            results = []
            for name in ("triton", "torch"):
                phi = guidance_crf(scores, guide, compatibility=compatibility, radius=radius, backend=name)
                results.append((phi, *torch.autograd.grad(phi.float().square().sum(), scores)))
            bound = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
            for actual, expected in zip(*results, strict=True):
                scale = float(expected.detach().abs().max())
                torch.testing.assert_close(actual, expected, rtol=0, atol=bound * scale)


@pytest.mark.gpu
def test_on_the_gpu_in_a_graph_and_compiled() -> None:
    scores, guide = torch.randn(1, 21, 75, 125, device="cuda"), 255 * torch.rand(1, 3, 75, 125, device="cuda")
    expected = guidance_crf(scores, guide)
    torch.testing.assert_close(torch.compile(guidance_crf, fullgraph=True)(scores, guide), expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = guidance_crf(scores, guide)
    graph.replay()
    torch.testing.assert_close(captured, expected)
