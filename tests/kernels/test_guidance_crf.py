"""The guidance CRF of the torch path, forward and backward, against the float64 reference of Algorithm 1."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels_tools import (
    FLAT,
    SCALES,
    TEXTURED,
    Case,
    assert_close,
    cases,
    channel_first,
    channel_last,
    few,
    lay_out,
    some,
)
from torch.autograd import forward_ad, gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import segmodel.reference.guidance_crf as reference
from segmodel.kernels import guidance_crf, prepare_guide
from segmodel.kernels.guidance_crf import _composite_crf

pytestmark = pytest.mark.usefixtures("engine")

# In units of the largest score, or 1. One filter may err by 1e-5 or 2e-4 (see the guided filter); q feels the scores,
# lambda = 2 and three iterations carry an error on, times 2 lambda (max of dq/dphi is 1/2) each: the sums stay below
# the bounds because the filter's typical error is a tenth of its bound.
BOUND = {"textured": 1e-5, "flat": 2e-4}


def arrays(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(channel_last(case.scores), channel_last(case.guide), strict=True))


def random_compatibility(labels: int, seed: int = 0) -> np.ndarray:
    """Neither symmetric nor zero on the diagonal."""
    return np.random.default_rng(seed).normal(size=(labels, labels)) / labels + 1 - np.eye(labels)


@some
@given(cases(labels=(1, 2, 21, 150), kinds=TEXTURED + FLAT, scales=SCALES), st.booleans(), st.integers(1, 4))
def test_float64_equals_the_reference(case: Case, learned: bool, iterations: int) -> None:
    mu = random_compatibility(case.scores.shape[1]) if learned else None
    options = {"iterations": iterations, "weight": 1.7, **case.options}
    actual = guidance_crf(
        case.scores, case.guide, compatibility=None if mu is None else torch.from_numpy(mu), **options
    )
    expected = channel_first([reference.guidance_crf(s, g, compatibility=mu, **options) for s, g in arrays(case)])
    assert_close(actual, expected, 1e-9)


@some
@given(cases(labels=(1, 2, 21), kinds=TEXTURED, scales=SCALES))
def test_float32_error_on_textured_guides(case: Case) -> None:
    actual = guidance_crf(case.scores.float(), case.guide.float(), **case.options)
    expected = channel_first([reference.guidance_crf(s, g, **case.options) for s, g in arrays(case)])
    assert_close(actual, expected, BOUND["textured"])


@some
@given(cases(labels=(1, 2, 21), kinds=FLAT, scales=SCALES))
def test_float32_error_on_flat_guides(case: Case) -> None:
    actual = guidance_crf(case.scores.float(), case.guide.float(), **case.options)
    expected = channel_first([reference.guidance_crf(s, g, **case.options) for s, g in arrays(case)])
    assert_close(actual, expected, BOUND["flat"])


@few
@given(cases(labels=(1, 2, 5), kinds=TEXTURED), st.booleans(), st.sampled_from((torch.float64, torch.float32)))
def test_gradients_equal_the_reference(case: Case, learned: bool, dtype: torch.dtype) -> None:
    labels = case.scores.shape[1]
    mu = random_compatibility(labels) if learned else None
    options = {"weight": 1.3, "iterations": 2, **case.options}
    y = torch.randn(case.scores.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [
        reference.guidance_crf_gradients(t, s, g, compatibility=mu, **options)
        for t, (s, g) in zip(channel_last(y), arrays(case), strict=True)
    ]
    scores = case.scores.detach().to(dtype, copy=True).requires_grad_()
    weight = torch.tensor(options.pop("weight"), dtype=dtype, requires_grad=True)
    compatibility = None if mu is None else torch.tensor(mu, dtype=dtype, requires_grad=True)
    phi = guidance_crf(scores, case.guide.to(dtype), compatibility=compatibility, weight=weight, **options)
    phi.backward(lay_out(y.numpy(), "transposed", dtype))
    # Sums over all pixels and labels of one sign at worst; the bound is relative to the largest entry.
    bound = 1e-9 if dtype == torch.float64 else 3e-5
    assert_close(scores.grad, channel_first([e.scores for e in expected]), bound)
    assert_close(weight.grad, np.array(sum(e.weight for e in expected)), 10 * bound)
    if compatibility is not None:
        assert_close(compatibility.grad, sum(e.compatibility for e in expected), 10 * bound)


@pytest.mark.parametrize("border", ["clipped", "constant"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradcheck(border: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    scores, mu = random(2, 2, 3, 4).requires_grad_(), random(2, 2).requires_grad_()
    weight = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    guide = 127 + 60 * random(2, channels, 3, 4)
    potts = lambda s, w: guidance_crf(s, guide[:1], weight=w, radius=2, border=border)  # noqa: E731
    assert gradcheck(potts, (scores[:1].detach().requires_grad_(), weight))
    options = {"radius": 1, "border": border, "iterations": 2}
    learned = lambda s, w, m: guidance_crf(s, guide, weight=w, compatibility=m, **options)  # noqa: E731
    assert gradcheck(learned, (scores, weight, mu))
    assert gradcheck(lambda m: learned(scores.detach(), 2.0, m), mu)


def test_a_guide_that_requires_a_gradient_gets_it() -> None:
    rng = np.random.default_rng(0)
    scores, guide, y = rng.normal(size=(5, 6, 3)), rng.uniform(0, 255, (5, 6, 3)), rng.normal(size=(5, 6, 3))
    expected = reference.guidance_crf_gradients(y, scores, guide, radius=2)
    s, g, t = (torch.from_numpy(x).permute(2, 0, 1)[None].requires_grad_() for x in (scores, guide, y))
    guidance_crf(s, g, radius=2).backward(t)
    assert_close(g.grad[0].permute(1, 2, 0), expected.guide, 1e-9)
    assert_close(s.grad[0].permute(1, 2, 0), expected.scores, 1e-9)
    prepared = prepare_guide(g, radius=2)
    assert prepared.planes.requires_grad


@few
@given(cases(labels=(1, 2, 21), kinds=TEXTURED, scales=SCALES))
def test_potts_needs_no_product(case: Case) -> None:
    potts = 1 - torch.eye(case.scores.shape[1], dtype=torch.float64)
    explicit = guidance_crf(case.scores, case.guide, compatibility=potts, **case.options)
    assert_close(guidance_crf(case.scores, case.guide, **case.options), explicit.numpy(), 1e-11)


@few
@given(cases(labels=(5,), kinds=("noise",), batch=(3,)), st.permutations(range(5)))
def test_batch_and_labels_are_independent(case: Case, order: list[int]) -> None:
    whole = guidance_crf(case.scores, case.guide, **case.options)
    for image in range(3):
        single = guidance_crf(case.scores[image : image + 1], case.guide[image : image + 1], **case.options)
        torch.testing.assert_close(whole[image : image + 1], single, rtol=0, atol=1e-14)
    permuted = guidance_crf(case.scores[:, order], case.guide, **case.options)
    torch.testing.assert_close(permuted, whole[:, order], rtol=0, atol=1e-12)


@few
@given(cases(labels=(3,), kinds=TEXTURED))
def test_half_precision_rounds_once(case: Case) -> None:
    scores = case.scores.bfloat16()
    actual = guidance_crf(scores, case.guide.float(), **case.options)
    assert actual.dtype == torch.bfloat16
    exact = guidance_crf(scores.double(), case.guide, **case.options)
    # 2^-9 relative rounding of the result, and the float32 error below it.
    torch.testing.assert_close(actual.double(), exact, rtol=2**-8, atol=1e-4)


def test_weight_zero_and_no_iterations_return_the_scores() -> None:
    scores, guide = torch.randn(1, 3, 5, 6), 255 * torch.rand(1, 3, 5, 6)
    for options in ({"weight": 0.0}, {"iterations": 0}):
        result = guidance_crf(scores, guide, **options)
        torch.testing.assert_close(result, scores, rtol=0, atol=0)
        assert result.data_ptr() != scores.data_ptr()


def test_operator_is_registered_well(engine: str) -> None:
    scores, guide = torch.randn(2, 3, 5, 6, requires_grad=True), 255 * torch.rand(2, 3, 5, 6)
    planes, weight = prepare_guide(guide, radius=2).planes, torch.tensor(2.0, requires_grad=True)
    for compatibility in (None, torch.rand(3, 3, requires_grad=True)):
        arguments = (scores, planes, compatibility, weight, 2, "clipped", 2, True, engine)
        torch.library.opcheck(torch.ops.segmodel.guidance_crf.default, arguments)


def test_compiles_whole_with_its_gradients_and_exports() -> None:
    scores, guide = torch.randn(1, 3, 7, 8, requires_grad=True), 255 * torch.rand(1, 3, 7, 8)
    mu = (1 - torch.eye(3)).requires_grad_()
    compiled = torch.compile(guidance_crf, fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (guidance_crf, compiled):
        phi = function(scores, guide, compatibility=mu)
        loss = lay_out(phi.detach().numpy(), "transposed", torch.float32)
        gradients.append((phi, *torch.autograd.grad(phi, (scores, mu), loss)))
    for eager, traced in zip(*gradients, strict=True):
        torch.testing.assert_close(eager, traced, rtol=1e-6, atol=1e-6)

    class Crf(torch.nn.Module):
        def forward(self, scores: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
            return guidance_crf(scores, guide)

    program = torch.export.export(Crf(), (scores.detach(), guide))
    assert not [node for node in program.graph.nodes if "segmodel" in str(node.target)]
    torch.testing.assert_close(program.module()(scores, guide), guidance_crf(scores, guide), rtol=1e-5, atol=1e-5)
    planes = prepare_guide(guide)
    composite = _composite_crf(scores, planes, mu, torch.tensor(2.0), 3)
    torch.testing.assert_close(composite, guidance_crf(scores, planes, compatibility=mu), rtol=1e-5, atol=1e-5)


def test_autocast_does_not_degrade_it() -> None:
    scores, guide = torch.randn(1, 3, 7, 8, requires_grad=True), 255 * torch.rand(1, 3, 7, 8)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            mu = (1 - torch.eye(3)).requires_grad_()
            phi = guidance_crf(scores, guide, compatibility=mu)
            results.append((phi, *torch.autograd.grad(phi.square().sum(), (scores, mu))))
    for plain, inside in zip(*results, strict=True):
        torch.testing.assert_close(plain, inside, rtol=0, atol=0)


def test_autocast_does_not_degrade_the_standard_operators() -> None:
    """A guide that requires a gradient takes them; their matrix product would be in bfloat16."""
    scores, guide = torch.randn(1, 3, 7, 8), (255 * torch.rand(1, 3, 7, 8)).requires_grad_()
    mu = 1 - torch.eye(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = guidance_crf(scores, guide, compatibility=mu)
    torch.testing.assert_close(inside, guidance_crf(scores, guide.detach(), compatibility=mu), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("enabled", "learned"), [(True, True), (True, False), (False, True)])
def test_beliefs_are_kept_for_a_gradient_only(enabled: bool, learned: bool) -> None:
    kept = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.segmodel.guidance_crf.default:
                kept.append(args[7])
            return function(*args, **(kwargs or {}))

    scores, guide = torch.randn(1, 3, 7, 8), 255 * torch.rand(1, 3, 7, 8)
    with Watch(), torch.set_grad_enabled(enabled):
        guidance_crf(scores, guide, weight=torch.tensor(2.0, requires_grad=learned))
    assert kept == [enabled and learned]


@pytest.mark.parametrize("name", ["scores", "weight", "compatibility"])
def test_forward_mode_raises(name: str) -> None:
    values = {"scores": torch.randn(1, 2, 4, 5), "weight": torch.tensor(2.0), "compatibility": 1 - torch.eye(2)}
    with forward_ad.dual_level():
        values[name] = forward_ad.make_dual(values[name], torch.ones_like(values[name]))
        with pytest.raises(NotImplementedError, match=f"^{name}: forward mode"):
            guidance_crf(guide=torch.zeros(1, 3, 4, 5), **values)


def test_a_second_derivative_raises() -> None:
    scores, guide = torch.randn(1, 2, 4, 5, requires_grad=True), 255 * torch.rand(1, 3, 4, 5)
    (gradient,) = torch.autograd.grad(guidance_crf(scores, guide).square().sum(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


BAD = {
    "compatibility": ({"compatibility": torch.zeros(3, 3)}, r"compatibility: expected shape \(2, 2\)"),
    "compatibility list": ({"compatibility": [[0, 1], [1, 0]]}, "compatibility: expected a tensor, got list"),
    "compatibility device": ({"compatibility": torch.zeros(2, 2, device="meta")}, "compatibility: expected device cpu"),
    "weight": ({"weight": torch.zeros(2)}, "weight: expected a number or one element"),
    "weight text": ({"weight": "2"}, "weight: expected a number or one element, got '2'"),
    "iterations": ({"iterations": -1}, "iterations: expected an integer"),
    "iterations bool": ({"iterations": True}, "iterations: expected an integer"),
    "scores": ({"scores": torch.zeros(2, 4, 5)}, "^scores: expected N C H W"),
    "guide": ({"guide": torch.zeros(1, 3, 4, 6)}, "^guide: expected batch, height and width"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_name_the_argument(name: str) -> None:
    change, message = BAD[name]
    good = {"scores": torch.zeros(1, 2, 4, 5), "guide": torch.zeros(1, 3, 4, 5)}
    with pytest.raises(ValueError, match=message):
        guidance_crf(**(good | change))
