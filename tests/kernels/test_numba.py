"""What is particular to the numba backend: where it runs, its threads, its cache, and faults planted in its loops.

That its results are right is tested with those of torch, by the same tests.
"""

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kernels_tools import Case
from torch import Tensor

from segmodel.experiments.timing import added_memory
from segmodel.kernels import backend, guidance_crf, guided_filter, prepare_guide
from tests.kernels import test_guidance_crf as crf_tests
from tests.kernels import test_guided_filter as filter_tests

numba = pytest.importorskip("numba", reason="the backend needs numba (extra cpu)")
from segmodel.kernels import numba_guidance_crf, numba_guided_filter, numba_rows, threads  # noqa: E402

ROOT = Path(__file__).parents[2]


def picture(labels: int = 5, height: int = 40, width: int = 30, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, labels, height, width, generator=generator)
    return scores, 255 * torch.rand(1, channels, height, width, generator=generator)


def test_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, guide = picture()
    monkeypatch.delenv("SEGMODEL_BACKEND", raising=False)
    assert backend.choose("auto", scores) == backend.choose("numba", scores.double()) == "numba"
    with pytest.raises(
        ValueError, match=r"'numba' cannot run here: the tensor is on meta, not on a CPU; use 'torch' or"
    ):
        guided_filter(scores.to("meta"), guide.to("meta"), backend="numba")
    with pytest.raises(ValueError, match="'numba' has no gradient for the guide"):
        guided_filter(scores, guide.requires_grad_(), backend="numba")
    assert guided_filter(scores, guide).requires_grad  # by standard operators
    monkeypatch.setenv("SEGMODEL_BACKEND", "torch")
    assert backend.choose("auto", scores) == "torch"
    monkeypatch.setenv("SEGMODEL_BACKEND", "numba")
    monkeypatch.setattr(backend, "NUMBA", False)
    message = (
        r"numba is not installed \(pip install segmodel\[cpu\]\); use 'torch' or 'auto' without SEGMODEL_BACKEND=numba"
    )
    with pytest.raises(ValueError, match=message):
        guided_filter(scores, guide.detach())
    monkeypatch.delenv("SEGMODEL_BACKEND")
    assert backend.choose("auto", scores) == "torch"


@pytest.fixture
def three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("labels", [1, 2, 7])
def test_threads_change_nothing(labels: int, three_threads: object) -> None:
    """Fewer labels than threads are cut into bands of rows as well."""
    scores, guide = picture(labels, height=70)
    shared = guided_filter(scores, guide, radius=1), guidance_crf(scores, guide), prepare_guide(guide, radius=1).planes
    torch.set_num_threads(1)
    alone = guided_filter(scores, guide, radius=1), guidance_crf(scores, guide), prepare_guide(guide, radius=1).planes
    for several, one in zip(shared, alone, strict=True):
        torch.testing.assert_close(several, one, rtol=1e-6, atol=1e-6)


def test_every_task_runs_once_and_errors_reach_the_caller() -> None:
    done: list[int] = []
    threads.share(done.append, [(i,) for i in range(50)], 4)
    assert sorted(done) == list(range(50))
    threads.share(done.append, [], 4)
    with pytest.raises(ZeroDivisionError):
        threads.share(lambda i: 1 // i, [(1,), (0,), (1,)], 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(three_threads: object) -> None:
    scores, guide = picture()
    expected = guided_filter(scores, guide)  # the parent's pool is running now
    child = os.fork()
    if child == 0:
        torch.set_num_threads(2)
        os._exit(0 if torch.equal(guided_filter(scores, guide), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_cache_that_cannot_be_written_costs_a_compile_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(*function: Callable, cache: bool = False, **options: object) -> Callable:
        if cache:
            return no_cache
        return numba.njit(*function, **options)

    def no_cache(function: Callable) -> Callable:
        raise RuntimeError("cannot cache function: no locator available")

    def full(self: object, key: object, data: object) -> None:
        raise OSError(28, "No space left on device")

    def double(x: object) -> None:
        x[0] *= 2  # type: ignore[index]

    for place, name, fault in (
        (numba_rows, "njit", no_folder),
        (numba.core.caching.IndexDataCacheFile, "save", full),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fault)
            x = torch.ones(1).numpy()
            numba_rows.compiled(double)(x)
            assert x[0] == 2


def test_a_large_map_takes_little_more_than_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of rows, guide included, say what the whole map says."""
    scores, guide = picture(3, height=90, width=20)
    whole = guided_filter(scores, guide, radius=2)
    monkeypatch.setattr(numba_guided_filter, "LARGE", 12 * 20 * 80)
    prepared = []
    original = numba_guided_filter.share_moments
    monkeypatch.setattr(numba_guided_filter, "share_moments", lambda *a: prepared.append(a) or original(*a))
    torch.testing.assert_close(guided_filter(scores, guide, radius=2), whole, rtol=1e-6, atol=1e-6)
    assert len(prepared) > 2


def test_a_large_guide_is_never_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_guided_filter, "LARGE", 2**21)
    scores, guide = picture(1, 6000, 700)  # 16 MiB, and 48 of the guide
    guided_filter(scores[..., :9, :9], guide[..., :9, :9])  # compiles
    added = added_memory(lambda: guided_filter(scores, guide))
    assert added is None or added < 80  # a copy of the guide in float64 takes 96


def test_the_first_call_does_not_import_the_compiler_of_torch() -> None:
    code = """
import sys, torch
from segmodel.kernels import guidance_crf
scores, guide = torch.zeros(1, 2, 4, 5, requires_grad=True), torch.zeros(1, 3, 4, 5)
for backend in ("torch", "numba"):
    guidance_crf(scores, guide, backend=backend).sum().backward()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def case() -> Case:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 4, 7, 6, dtype=torch.float64, generator=generator)
    guide = 255 * torch.rand(2, 3, 7, 6, dtype=torch.float64, generator=generator).float().double()
    return Case(scores, guide, "noise", 2, "clipped", 3.0)


ROWS, STEPS = numba_rows, numba_guidance_crf
EQUAL = (filter_tests.test_float64_equals_the_reference,)
ADJOINT = (filter_tests.test_adjoint_is_the_transpose,)
CRF = (crf_tests.test_float64_equals_the_reference, False, 3, 1.7)
GRADIENT = (crf_tests.test_gradients_equal_the_reference, False, torch.float64, -0.7)
# name: (where, what stands there, what is planted, the test with its further arguments)
FAULTS: dict[str, tuple] = {
    "W instead of its adjoint": (ROWS, "(rows, columns) if adjoint else (one, ones)", "(one, ones)", *ADJOINT),
    "a row that never leaves": (ROWS, "s[x] += entering[x] - leaving[x]", "s[x] += entering[x]", *EQUAL),
    "the colours of another row": (ROWS, "before = sums[1 + c, start:], planes[c, enters], planes[c, leaves]",
                                   "before = sums[1 + c, start:], planes[c, enters], planes[c, enters]", *EQUAL),
    "a ring one row short": (ROWS, "solved[i, y % ring]", "solved[i, y % (ring - 1)]", *EQUAL),
    "eps forgotten": (ROWS, "else value[x] + eps", "else value[x]", *EQUAL),
    "a window one too short": (ROWS, "size, width, rows = 2 * across + 1", "size, width, rows = 2 * across", *EQUAL),
    "a pivot's own row": (ROWS, "lower[j * (j - 1) // 2 + k]", "lower[k]", *EQUAL),
    "the softmax without its largest": (STEPS, "target[x] /= total[x]", "target[x] /= total[0]", *CRF),
    "potts with its own label": (STEPS, "weight * (total[x] - row[x])", "weight * total[x]", *CRF),
    "gradient of the last iteration only": (STEPS, "sums[x] += row[x]", "pass", *GRADIENT),
    "the constant of Potts left out": (STEPS, "part -= outside", "pass", *GRADIENT),
    "the weight's sign lost": (STEPS, "weight.detach().item() *", "abs(weight.detach().item()) *", *GRADIENT),
}  # fmt: skip


def interpreted(module: types.ModuleType, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module with the fault in its text, as plain Python."""
    source = Path(str(module.__file__)).read_text()
    assert source.count(old) == 1, f"{module.__name__} has {old!r} {source.count(old)} times"
    copy = types.ModuleType(module.__name__)
    copy.__package__ = module.__package__
    plain = lambda *function, **options: function[0] if function else lambda f: f  # noqa: E731
    monkeypatch.setattr(numba, "njit", plain)
    exec(compile(source.replace(old, new), "<with a fault>", "exec"), copy.__dict__)
    monkeypatch.undo()
    return copy


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_turns_a_test_red(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, old, new, test, *arguments = FAULTS[name]
    inner = test.hypothesis.inner_test
    for text, raises in ((old, False), (new, True)):
        with pytest.MonkeyPatch.context() as patch:
            copy = interpreted(module, old, text, monkeypatch)
            if module is ROWS:
                patch.setattr(numba_guided_filter, "numba_rows", copy)
            else:
                for function in ("update", "update_backward", "beliefs"):
                    patch.setattr(numba_guidance_crf, function, getattr(copy, function))
            if raises:
                with pytest.raises(AssertionError):
                    inner(case(), *arguments)
            else:
                inner(case(), *arguments)


@pytest.mark.parametrize(("dtype", "bound", "least"), [(np.float32, 1e-7, -87.0), (np.float64, 1e-15, -708.0)])
def test_the_exponential_is_as_exact_as_its_type(dtype: type, bound: float, least: float) -> None:
    exponential = numba_guidance_crf.exponential

    @numba.njit(error_model="numpy")
    def all_of(x: np.ndarray, out: np.ndarray) -> None:
        for i in range(len(x)):
            out[i] = exponential(x[i])

    x = np.concatenate([np.linspace(least, 0, 100_001), [-np.inf, -1e9, np.nan]]).astype(dtype)
    found = np.empty_like(x)
    all_of(x, found)
    exact = np.exp(x[:-3].astype(np.longdouble))
    assert np.abs(found[:-3] / exact - 1).max() <= bound
    assert found[-4] == 1
    assert (found[-3:-1] == found[0]).all()
    assert np.isnan(found[-1])
