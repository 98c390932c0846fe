"""Faults that such operators have had elsewhere, planted one at a time: each must turn a test of the torch path red."""

import inspect
import textwrap
from collections.abc import Callable

import pytest
import torch
from kernels_tools import Case

from segmodel.kernels import (
    backend,
    blocked_filter,
    box_filter,
    flat_planes,
    guidance_crf,
    guide_moments,
    guided_filter,
)
from segmodel.kernels.flat_planes import FlatPlanes
from tests.kernels import test_box_filter as box_tests
from tests.kernels import test_guidance_crf as crf_tests
from tests.kernels import test_guided_filter as filter_tests

# Importing the operators' modules by name: the package's attributes of the same names are the functions.
MODULES = {function: inspect.getmodule(function) for function in (box_filter, guided_filter, guidance_crf)}

filter_equal, filter_adjoint = (
    filter_tests.test_float64_equals_the_reference,
    filter_tests.test_adjoint_is_the_transpose,
)
crf_equal, crf_gradient = crf_tests.test_float64_equals_the_reference, crf_tests.test_gradients_equal_the_reference
box_adjoint = box_tests.test_adjoint_equals_the_reference


def case() -> Case:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 7, 6, dtype=torch.float64, generator=generator)
    guide = 255 * torch.rand(2, 3, 7, 6, dtype=torch.float64, generator=generator).float().double()
    return Case(scores, guide, "noise", 2, "clipped")


# name: (where, function, what stands there, what is planted, the test with its further arguments)
FAULTS: dict[str, tuple] = {
    "W instead of its adjoint": (
        blocked_filter, "blocked_filter", "(inverse, one) if adjoint else", "(one, inverse) if adjoint else",
        filter_adjoint,
    ),
    "box mean instead of its adjoint": (
        MODULES[box_filter], "blocked_box_filter", "(inverse, one) if adjoint else", "(one, inverse) if adjoint else",
        box_adjoint, 2,
    ),
    "eps added twice": (guide_moments, "factorise", "(entry + eps)", "(entry + eps + eps)", filter_equal),
    "eps forgotten below the diagonal's first entry": (
        guide_moments, "factorise", "(entry + eps)", "(entry + eps * (i == 0))", filter_equal,
    ),
    "a border count off by one": (
        flat_planes, "line_counts", "(last - first + 1)", "(last - first + 2)", filter_equal,
    ),
    "images of a batch mixed": (
        blocked_filter, "blocked_filter", "planes[image], inverse", "planes[0], inverse", filter_equal,
    ),
    "a mask forgotten: no zeros between rows": (
        FlatPlanes, "pitch", "self.width + self.across", "self.width", filter_equal,
    ),
    "window one too short": (
        FlatPlanes, "box_sum", "2 * self.across + 1", "2 * self.across", filter_equal,
    ),
    "softmax over the batch": (
        MODULES[guidance_crf], "update", "torch.softmax(phi, dim=1", "torch.softmax(phi, dim=0",
        crf_equal, False, 3, 1.7,
    ),
    "the update starts from phi, not from the unary scores": (
        MODULES[guidance_crf], "forward", "unary, message, weight", "q, message, weight", crf_equal, False, 3, 1.7,
    ),
    "compatibility not transposed": (
        MODULES[guidance_crf], "backward", "messages(compatibility.mT, h)", "messages(compatibility, h)",
        crf_gradient, True, torch.float64, -0.7,
    ),
    "gradient of the last iteration only": (
        MODULES[guidance_crf], "update_backward", "total += step", "total", crf_gradient, False, torch.float64, -0.7,
    ),
    "the constant of Potts left out of the weight's gradient": (
        MODULES[guidance_crf], "update_backward", "- h.sum()", "", crf_gradient, False, torch.float64, -0.7,
    ),
}  # fmt: skip


def bare(function: Callable | property) -> Callable:
    return function.fget if isinstance(function, property) else function


def planted(name: str, function: Callable, old: str, new: str) -> Callable:
    """The same function with the fault in its text."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) >= 1, f"{name} has no {old!r} any more"
    scope = dict(function.__globals__)
    exec(compile(source.replace(old, new), f"<{name} with a fault>", "exec"), scope)
    return bare(scope[name])


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_turns_a_test_red(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "NUMBA", False)
    where, function, old, new, test, *arguments = FAULTS[name]
    inner = test.hypothesis.inner_test
    inner(case(), *arguments)
    original = bare(inspect.getattr_static(where, function))
    # the code, not the name: registered operators hold the function itself
    monkeypatch.setattr(original, "__code__", planted(function, original, old, new).__code__)
    with pytest.raises((AssertionError, RuntimeError)):
        inner(case(), *arguments)
