"""Windowed means against the reference, and the gradients of both orders."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels_tools import Case, assert_close, cases, channel_first, channel_last, few, some
from torch.autograd import gradcheck, gradgradcheck

from segmodel.kernels import box_filter, flat_planes
from segmodel.kernels.box_filter import box_sum
from segmodel.kernels.flat_planes import FlatPlanes, window_counts, window_sum
from segmodel.reference.arrays import box_mean, box_mean_adjoint
from segmodel.reference.arrays import box_sum as reference_sum


@some
@given(cases(labels=(1, 2, 21)), st.integers(0, 40))
def test_equals_the_reference(case: Case, radius: int) -> None:
    images = channel_last(case.scores)
    clipped = channel_first([box_mean(image, radius=radius) for image in images])
    constant = channel_first([reference_sum(image, radius=radius) for image in images]) / (2 * radius + 1) ** 2
    assert_close(box_filter(case.scores, radius=radius), clipped, 1e-14)
    assert_close(box_filter(case.scores, radius=radius, border="constant"), constant, 1e-14)
    assert_close(box_filter(case.scores.float(), radius=radius), clipped, 1e-6)
    half = box_filter(case.scores.bfloat16(), radius=radius)
    assert half.dtype == torch.bfloat16
    exact = box_filter(case.scores.bfloat16().double(), radius=radius)
    torch.testing.assert_close(half.double(), exact, rtol=2**-8, atol=1e-6)


@few
@given(cases(labels=(3,)), st.integers(0, 9))
def test_adjoint_equals_the_reference(case: Case, radius: int) -> None:
    x = case.scores.clone().requires_grad_()
    y = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    box_filter(x, radius=radius).backward(y)
    assert_close(x.grad, channel_first([box_mean_adjoint(image, radius=radius) for image in channel_last(y)]), 1e-14)


@given(st.integers(1, 300))
@few
def test_window_sum_of_any_size(size: int) -> None:
    x = torch.arange(700.0, dtype=torch.float64).square()
    expected = np.convolve(x.numpy(), np.ones(size), mode="valid")
    np.testing.assert_allclose(window_sum(x, size).numpy(), expected, rtol=1e-14)
    torch.testing.assert_close(window_sum(x[:, None], size, dim=0)[:, 0], window_sum(x, size), rtol=0, atol=0)


@given(st.integers(1, 130), st.sampled_from((1, 2, 7)), st.sampled_from((torch.float32, torch.float64)))
@some
def test_strided_window_sum_equals_the_plain_one(size: int, step: int, dtype: torch.dtype) -> None:
    x = torch.randn(2, 140 * step, dtype=dtype, generator=torch.Generator().manual_seed(0))
    actual = window_sum(x, size, step=step, strided=True)
    expected = window_sum(x.view(2, 140, step), size, dim=1).flatten(1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_pass_over_a_register_of_neighbours(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight float32 or four float64 would become the inner loop of torch.sum; and no pass is wasted."""
    passes = []
    original = torch.Tensor.sum
    monkeypatch.setattr(
        torch.Tensor, "sum", lambda x, dim: passes.append((x.shape[dim], x.stride(dim))) or original(x, dim)
    )
    x = torch.zeros(1, 700, dtype=dtype)
    for size in range(1, 150):
        passes.clear()
        window_sum(x, size, strided=True)
        assert all(step > 1 or terms * x.itemsize < 32 for terms, step in passes)
    passes.clear()
    window_sum(x, 63, step=3, strided=True)
    assert passes == [(7, 3), (9, 21)]
    passes.clear()
    window_sum(x, 63)
    assert not passes


def test_cost_grows_with_the_logarithm_of_the_radius() -> None:
    """Count additions: at most two for every factor of two in the window."""

    class Counting(torch.overrides.TorchFunctionMode):
        additions = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            Counting.additions += function in (torch.Tensor.add, torch.Tensor.__add__)
            return function(*args, **(kwargs or {}))

    for radius in (1, 3, 31, 100):
        Counting.additions = 0
        with Counting():
            window_sum(torch.zeros(500), 2 * radius + 1)
        assert 0 < Counting.additions <= 2 * np.log2(2 * radius + 1)


def test_flat_layout_keeps_rows_apart() -> None:
    """One hot pixel at the end of a row must not reach the start of the next."""
    layout = FlatPlanes(4, 5, 2)
    padded = layout.padded(1, torch.zeros(()))
    layout.pixels(layout.core(padded))[0, 1, 4] = 1.0
    sums = layout.pixels(layout.box_sum(padded))[0]
    expected = torch.zeros(4, 5)
    expected[0:4, 2:5] = 1.0
    torch.testing.assert_close(sums, expected, rtol=0, atol=0)


def test_blocks_fit_the_cache_of_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, cpu = FlatPlanes(10, 7, 3), torch.device("cpu")  # 100 elements a plane
    monkeypatch.setattr(flat_planes, "BLOCK", 350)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert layout.block(50, cpu) == 7
    assert layout.block(5, cpu) == 5
    assert layout.block(50, torch.device("meta")) == 50
    assert FlatPlanes(100, 97, 3).block(50, cpu) == 1
    assert layout.block(0, cpu) == 1  # a step of range, also for an empty batch


def test_blocks_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 5, 6, 7)
    expected = box_filter(x, radius=2)
    for block in (1, 120):
        monkeypatch.setattr(flat_planes, "BLOCK", block)
        torch.testing.assert_close(box_filter(x, radius=2), expected, rtol=0, atol=0)


def test_window_counts() -> None:
    expected = torch.tensor([[4.0, 6.0, 4.0], [4.0, 6.0, 4.0]])
    assert torch.equal(window_counts(torch.zeros(2, 3), 1, "clipped"), expected)
    assert torch.equal(window_counts(torch.zeros(5, 2, 3), 1, "constant"), torch.full((2, 3), 9.0))


@pytest.mark.parametrize("border", ["clipped", "constant"])
def test_gradients_of_both_orders(border: str) -> None:
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: box_filter(x, radius=2, border=border), x)
    assert gradgradcheck(lambda x: box_filter(x, radius=2, border=border), x)


def test_registered_compiled_exported() -> None:
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    torch.library.opcheck(torch.ops.segmodel.box_filter.default, (x, 2, "clipped", False))
    torch.library.opcheck(
        torch.ops.segmodel.box_filter.default, (x.to(memory_format=torch.channels_last), 2, "constant", True)
    )
    compiled = torch.compile(box_filter, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, radius=2), box_filter(x, radius=2), rtol=0, atol=0)

    class Box(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return box_filter(x, radius=2)

    program = torch.export.export(Box(), (x.detach(),))
    assert not [node for node in program.graph.nodes if "segmodel" in str(node.target)]
    torch.testing.assert_close(program.module()(x), box_filter(x, radius=2), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(box_sum(torch.ones(1, 1, 3, 3), 1)[0, 0, 0, 0], torch.tensor(4.0))


@pytest.mark.parametrize("border", ["clipped", "constant"])
def test_standard_operators_while_exporting(border: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 5, 6)
    expected = {radius: box_filter(x, radius=radius, border=border) for radius in (0, 1, 2, 7)}
    half = box_filter(x.bfloat16(), radius=2, border=border)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    monkeypatch.setattr(torch.ops.segmodel, "box_filter", None)
    for radius, mean in expected.items():
        torch.testing.assert_close(box_filter(x, radius=radius, border=border), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(box_filter(x.bfloat16(), radius=2, border=border), half)


def test_where_triton_could_run_it_still_has_no_form(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton exists for Linux only, and this machine has none")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x = torch.randn(1, 2, 5, 6)
    with pytest.raises(ValueError, match="backend: box_filter has no Triton form"):
        box_filter(x, radius=1, backend="triton")
    expected = box_filter(x, radius=1, backend="torch")
    monkeypatch.setenv("SEGMODEL_BACKEND", "triton")  # for the operators that have one
    assert torch.equal(box_filter(x, radius=1), expected)
    torch.testing.assert_close(box_filter(x.double(), radius=1).float(), expected)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert torch.equal(box_filter(x, radius=1), expected)


def test_autocast_and_errors() -> None:
    x = torch.randn(1, 2, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(box_filter(x, radius=2), box_filter(x.double(), radius=2).float())
    for change, message in (
        ({"x": x[0]}, "^x: expected N C H W"),
        ({"radius": -1}, "radius: expected"),
        ({"border": "zero"}, "border: expected"),
        ({"backend": "triton"}, "backend: box_filter has no Triton form"),
        ({"backend": "fast"}, "backend: expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            box_filter(**({"x": x, "radius": 1} | change))
