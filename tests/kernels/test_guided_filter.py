"""The guided filter of the torch path against the float64 reference of Eq. 11, 12 and 16."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given
from hypothesis import strategies as st
from kernels_tools import EPS, FLAT, SCALES, TEXTURED, Case, assert_close, cases, channel_first, channel_last, few, some
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

import segmodel.reference.guided_filter as reference
from segmodel.kernels import PreparedGuide, box_filter, flat_planes, guidance_crf, guided_filter, prepare_guide
from segmodel.kernels.guided_filter import composite_filter

pytestmark = pytest.mark.usefixtures("engine")

# Float32 error against float64, in units of the largest score. Textured: the acceptance bound. Flat: two_valued grey
# colours have condition number 3 * 127^2 and steps have windows with both; measured 2e-5, bound from the same table.
BOUND = {"textured": 1e-5, "flat": 2e-4}


def oracle(case: Case) -> np.ndarray:
    pairs = zip(channel_last(case.scores), channel_last(case.guide), strict=True)
    return channel_first([reference.guided_filter(s, g, **case.theirs) for s, g in pairs])


@some
@given(cases(labels=(1, 2, 21, 150), kinds=TEXTURED + FLAT, scales=SCALES, eps=(0.01, *EPS)))
def test_float64_equals_the_reference(case: Case) -> None:
    actual = guided_filter(case.scores, case.guide, **case.ours)
    # eps = 1 against variances of 127^2: the reference inverts what the operator factorises, 1e4 roundings apart.
    assert_close(actual, oracle(case), 1e-10 / min(case.eps, 1))


@some
@given(cases(labels=(1, 2, 21, 150), kinds=TEXTURED, scales=SCALES, eps=EPS))
def test_float32_error_on_textured_guides(case: Case) -> None:
    actual = guided_filter(case.scores.float(), case.guide.float(), **case.ours)
    assert actual.dtype == torch.float32
    assert_close(actual, oracle(case), BOUND["textured"])


@some
@given(cases(labels=(1, 2, 21), kinds=FLAT, scales=SCALES, eps=EPS))
def test_float32_error_on_flat_guides(case: Case) -> None:
    actual = guided_filter(case.scores.float(), case.guide.float(), **case.ours)
    assert_close(actual, oracle(case), BOUND["flat"])


@few
@given(cases(kinds=TEXTURED), st.sampled_from((torch.float16, torch.bfloat16)))
def test_half_precision_rounds_once(case: Case, dtype: torch.dtype) -> None:
    scores = case.scores.to(dtype)
    actual = guided_filter(scores, case.guide.float(), **case.options)
    assert actual.dtype == dtype
    exact = guided_filter(scores.double(), case.guide, **case.options)
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(actual.double(), exact, rtol=rtol, atol=atol)


@few
@given(cases(kinds=TEXTURED + FLAT, eps=EPS))
def test_adjoint_is_the_transpose(case: Case) -> None:
    p = case.scores.clone().requires_grad_()
    q = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(0))
    w_p = guided_filter(p, case.guide, **case.ours)
    w_p.backward(q)
    w_p = w_p.detach()
    # <W p, q> = <p, W^T q>; the gradient against the reference's own adjoint says the same, entry by entry.
    assert (
        abs(float((w_p * q).sum() - (p.detach() * p.grad).sum()))
        < 1e-9 * max(1.0, float(p.detach().abs().max())) * p.numel()
    )
    pairs = zip(channel_last(q), channel_last(case.guide), strict=True)
    expected = channel_first([reference.guided_filter_adjoint(y, g, **case.theirs) for y, g in pairs])
    assert_close(p.grad, expected, 1e-10)


@few
@given(cases(labels=(1, 2), kinds=TEXTURED + FLAT))
def test_clipped_rows_sum_to_one(case: Case) -> None:
    ones = torch.ones_like(case.scores.float())
    torch.testing.assert_close(guided_filter(ones, case.guide.float(), radius=case.radius), ones, rtol=0, atol=2e-5)


@few
@given(cases(labels=(5,), kinds=("noise",), batch=(3,)), st.permutations(range(5)))
def test_batch_and_labels_are_independent(case: Case, order: list[int]) -> None:
    whole = guided_filter(case.scores, case.guide, **case.options)
    for image in range(3):
        single = guided_filter(case.scores[image : image + 1], case.guide[image : image + 1], **case.options)
        torch.testing.assert_close(whole[image : image + 1], single, rtol=0, atol=0)
    torch.testing.assert_close(guided_filter(case.scores[:, order], case.guide, **case.options), whole[:, order])


@few
@given(cases(labels=(2,), kinds=TEXTURED + FLAT))
def test_composite_and_prepared_say_the_same(case: Case) -> None:
    prepared = prepare_guide(case.guide, **case.options)
    blocked = guided_filter(case.scores, prepared)
    torch.testing.assert_close(blocked, guided_filter(case.scores, case.guide, **case.options), rtol=0, atol=0)
    torch.testing.assert_close(blocked, composite_filter(case.scores, prepared), rtol=1e-9, atol=1e-9)


def test_blocks_of_labels_and_large_planes() -> None:
    """More labels than one block holds, and a plane larger than a block."""
    rng = np.random.default_rng(0)
    for labels, height, width in ((40, 60, 61), (2, 310, 301)):
        scores, guide = rng.normal(size=(height, width, labels)), rng.uniform(0, 255, (height, width, 3))
        expected = reference.guided_filter(scores, guide)
        tensors = (torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (scores, guide))
        assert_close(guided_filter(*tensors)[0].permute(1, 2, 0), expected, BOUND["textured"])


@pytest.mark.parametrize("channels", [2, 4, 16])
def test_guides_of_many_channels(channels: int) -> None:
    """W does not change when the colours are turned, as points, in a space of more dimensions."""
    rng = np.random.default_rng(channels)
    colours = min(3, channels // 2 * 2 - 1)  # 1 or 3, which the reference takes
    turn = np.linalg.qr(rng.normal(size=(channels, colours)))[0]
    scores, guide, y = (
        rng.normal(size=(11, 13, 4)),
        rng.uniform(0, 255, (11, 13, colours)),
        rng.normal(size=(11, 13, 4)),
    )
    p, many, t = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (scores, guide @ turn.T, y))
    p.requires_grad_()
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        p.grad = None
        filtered = guided_filter(p.to(dtype), many.to(dtype), radius=2, eps=3.0)
        assert_close(filtered[0].permute(1, 2, 0), reference.guided_filter(scores, guide, radius=2, epsilon=3.0), bound)
        filtered.backward(t.to(dtype))
        expected = reference.guided_filter_adjoint(y, guide, radius=2, epsilon=3.0)
        assert_close(p.grad[0].permute(1, 2, 0), expected, bound)
    composite = composite_filter(p, prepare_guide(many.requires_grad_(), radius=2, eps=3.0))
    torch.testing.assert_close(composite, guided_filter(p, many.detach(), radius=2, eps=3.0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("border", ["clipped", "constant"])
def test_windows_of_many_pixels_on_a_wide_map(border: str) -> None:
    """Radii above 40 that the map does not cut, and more than 4,096 pixels."""
    rng = np.random.default_rng(3)
    scores, guide = rng.normal(size=(45, 130, 2)), rng.uniform(0, 255, (45, 130, 3))
    expected = reference.guided_filter(scores, guide, radius=53, border=border)
    s, g = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (scores, guide))
    assert_close(guided_filter(s, g, radius=53, border=border)[0].permute(1, 2, 0), expected, 1e-10)


def test_integers_of_numpy_are_integers() -> None:
    scores, guide = torch.randn(1, 2, 4, 5), 255 * torch.rand(1, 3, 4, 5)
    expected = guidance_crf(scores, guide, radius=2, iterations=2)
    assert torch.equal(guidance_crf(scores, guide, radius=np.int64(2), iterations=np.uint8(2)), expected)


@pytest.mark.parametrize("border", ["clipped", "constant"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_both_orders(border: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    guide = 255 * torch.rand(2, channels, 3, 4, dtype=torch.float64, generator=generator)
    function = lambda s: guided_filter(s, guide, radius=2, border=border)  # noqa: E731
    assert gradcheck(function, scores)
    assert gradgradcheck(function, scores)
    guide, scores = guide[:1].requires_grad_(), torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=generator)
    # The filter of eps = 1 bends within a colour step of 1; 400 keeps finite differences meaningful.
    assert gradcheck(lambda g: guided_filter(scores, g, radius=1, eps=400.0, border=border), guide)


def test_guide_gradient_equals_the_reference() -> None:
    rng = np.random.default_rng(1)
    scores, guide, y = rng.normal(size=(5, 6, 2)), rng.uniform(0, 255, (5, 6, 3)), rng.normal(size=(5, 6, 2))
    expected = reference.guided_filter_guide_gradient(y, scores, guide, radius=2)
    s, g, t = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (scores, guide, y))
    g.requires_grad_()
    guided_filter(s, g, radius=2).backward(t)
    assert_close(g.grad[0].permute(1, 2, 0), expected, 1e-9)
    assert np.abs(expected).max() > 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_operators_are_registered_well(channels: int, engine: str) -> None:
    scores, guide = torch.randn(2, 3, 5, 6, requires_grad=True), 255 * torch.rand(2, channels, 5, 6)
    planes = prepare_guide(guide, radius=2).planes
    torch.library.opcheck(torch.ops.segmodel.guided_filter.default, (scores, planes, 2, "clipped", False, engine))
    torch.library.opcheck(torch.ops.segmodel.guide_moments.default, (guide, 2, 1.0, engine))


def test_compiles_whole_and_exports_standard_operators() -> None:
    scores, guide = torch.randn(1, 3, 7, 8), 255 * torch.rand(1, 3, 7, 8)
    expected = guided_filter(scores, guide)
    compiled = torch.compile(guided_filter, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(scores, guide), expected, rtol=0, atol=0)

    class Filter(torch.nn.Module):
        def forward(self, scores: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
            return guided_filter(scores, guide)

    sizes = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    program = torch.export.export(Filter(), (scores, guide), dynamic_shapes=(sizes, sizes))
    assert not [node for node in program.graph.nodes if "segmodel" in str(node.target)]
    wider = torch.randn(1, 3, 9, 5), 255 * torch.rand(1, 3, 9, 5)
    torch.testing.assert_close(program.module()(*wider), guided_filter(*wider), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("border", ["clipped", "constant"])
@pytest.mark.parametrize("radius", [7, 1000, 10**6])
def test_windows_larger_than_the_map_cost_no_more(radius: int, border: str) -> None:
    """Their sums would take a thousand times the map's memory, or more than any machine has."""
    rng = np.random.default_rng(0)
    scores, guide = rng.normal(size=(5, 8, 2)), rng.uniform(0, 255, (5, 8, 3))
    options = {"radius": radius, "border": border}
    expected = channel_first([reference.guided_filter(scores, guide, **options)])
    s, g = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (scores, guide))
    scale = np.abs(expected).max()
    assert_close(guided_filter(s, g, **options) / scale, expected / scale, 1e-9)
    assert_close(composite_filter(s, prepare_guide(g.requires_grad_(), **options)) / scale, expected / scale, 1e-9)


def test_the_variable_asks_as_the_argument_does(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, guide = torch.randn(1, 2, 4, 5), torch.zeros(1, 3, 4, 5, requires_grad=True)
    monkeypatch.setenv("SEGMODEL_BACKEND", "cuda")
    with pytest.raises(ValueError, match=r"^SEGMODEL_BACKEND: expected one of"):
        guided_filter(scores, guide)
    pytest.importorskip("triton", reason="Triton exists for Linux only, and this machine has none")
    monkeypatch.setenv("SEGMODEL_BACKEND", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="'triton' has no gradient for the guide"):
        guided_filter(scores, guide)


def test_autocast_does_not_degrade_it() -> None:
    scores, guide = torch.randn(1, 3, 7, 8), 255 * torch.rand(1, 3, 7, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = guided_filter(scores, guide)
        assert guided_filter(scores.bfloat16(), guide).dtype == torch.bfloat16
    torch.testing.assert_close(inside, guided_filter(scores, guide), rtol=0, atol=0)


@pytest.mark.parametrize("operator", [guided_filter, guidance_crf, box_filter])
def test_what_is_not_supported_raises(operator: Callable) -> None:
    scores, guide = torch.randn(1, 2, 4, 5), 255 * torch.rand(1, 3, 4, 5)
    function = partial(operator, radius=2) if operator is box_filter else partial(operator, guide=guide)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(function, (scores,), (scores,))
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda s: function(s).sum())(scores)


GOOD = {"scores": torch.zeros(1, 2, 4, 5), "guide": torch.zeros(1, 3, 4, 5)}
BAD = {
    "rank": ({"scores": torch.zeros(2, 4, 5)}, "scores: expected N C H W"),
    "integers": ({"scores": torch.zeros(1, 2, 4, 5, dtype=torch.int64)}, "scores: expected one of"),
    "not a tensor": ({"scores": [1.0]}, "scores: expected a tensor"),
    "no labels": ({"scores": torch.zeros(1, 0, 4, 5)}, "scores: expected at least one channel"),
    "guide size": ({"guide": torch.zeros(1, 3, 4, 6)}, "guide: expected batch, height and width"),
    "guide batch": ({"guide": torch.zeros(2, 3, 4, 5)}, "guide: expected batch, height and width"),
    "guide channels": ({"guide": torch.zeros(1, 17, 4, 5)}, "guide: expected 1 to 16 channels, got 17"),
    "sparse": (
        {"scores": torch.zeros(1, 2, 4, 5).to_sparse()},
        "scores: expected a dense tensor, got torch.sp",
    ),
    "guide precision": (
        {"scores": torch.zeros(1, 2, 4, 5, dtype=torch.float64), "guide": prepare_guide(torch.zeros(1, 3, 4, 5))},
        "guide: float64 scores",
    ),
    "guide device": ({"guide": torch.zeros(1, 3, 4, 5, device="meta")}, "guide: expected device"),
    "radius": ({"radius": -1}, "radius: expected an integer"),
    "radius type": ({"radius": 1.5}, "radius: expected an integer"),
    "radius tensor": ({"radius": torch.tensor(3)}, "radius: expected an integer"),
    "radius bool of numpy": ({"radius": np.True_}, "radius: expected an integer"),
    "radius bool": ({"radius": True}, "radius: expected an integer"),
    "eps infinite": ({"eps": float("inf")}, "eps: expected a finite number > 0, got inf"),
    "eps text": ({"eps": "a"}, "eps: expected a finite number > 0, got 'a'"),
    "eps": ({"eps": 0.0}, "eps: expected a finite number > 0"),
    "border": ({"border": "authors"}, "border: expected one of"),
    "backend": ({"backend": "cuda"}, "backend: expected one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_name_the_argument(name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        guided_filter(**(GOOD | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guide": torch.zeros(3, 4, 5)}, "^guide: expected N C H W"),
        ({"guide": torch.zeros(1, 3, 4, 5, dtype=torch.int32)}, "^guide: expected one of"),
        ({"guide": [1.0]}, "^guide: expected a tensor"),
        ({"eps": -1.0}, "^eps: expected a finite number > 0"),
    ],
)
def test_errors_of_prepare_guide(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_guide(**({"guide": torch.zeros(1, 3, 4, 5)} | change))


def test_planes_of_a_prepared_guide() -> None:
    guide = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)
    planes = prepare_guide(guide, radius=9).planes
    centred = guide - guide.double().mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(planes[:, :3].double(), centred, rtol=0, atol=1e-5)
    # The window is the whole image: means 0, and L D L^T is the covariance plus eps.
    torch.testing.assert_close(planes[:, 3:6], torch.zeros(2, 3, 5, 6), rtol=0, atol=1e-4)
    variance = (centred[:, :1] ** 2).mean(dim=(2, 3), keepdim=True).expand(2, 1, 5, 6)
    torch.testing.assert_close(1 / planes[:, 9:10].double(), variance + 1, rtol=1e-5, atol=0)


def test_float64_scores_take_any_guide() -> None:
    scores, guide = torch.randn(1, 2, 5, 6, dtype=torch.float64), torch.randint(0, 256, (1, 3, 5, 6), dtype=torch.uint8)
    torch.testing.assert_close(guided_filter(scores, guide), guided_filter(scores, guide.double()), rtol=0, atol=0)


def test_defaults_are_the_papers() -> None:
    scores, guide = torch.randn(1, 2, 9, 9), 255 * torch.rand(1, 3, 9, 9)
    options = {"radius": 3, "eps": 1.0, "border": "clipped"}
    assert torch.equal(guided_filter(scores, guide), guided_filter(scores, guide, **options))
    assert torch.equal(prepare_guide(guide).planes, prepare_guide(guide, **options).planes)
    assert torch.equal(guidance_crf(scores, guide), guidance_crf(scores, guide, iterations=3, weight=2.0, **options))


def test_autocast_computes_every_operator_in_float32(engine: str) -> None:
    scores, guide = torch.randn(1, 2, 5, 6).bfloat16(), (255 * torch.rand(1, 3, 5, 6)).bfloat16()
    planes, weight, ops = prepare_guide(guide.float()).planes.bfloat16(), torch.tensor(2.0), torch.ops.segmodel
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = (
            ops.box_filter(scores, 2, "clipped", False),
            ops.guide_moments(guide, 3, 1.0, engine),
            ops.guided_filter(scores, planes, 3, "clipped", False, engine),
            *ops.guidance_crf(scores, planes, None, weight, 3, "clipped", 2, True, engine),
        )
        backward = ops.guidance_crf_backward(scores, results[-1], planes, None, weight, 3, "clipped", engine)
    assert all(x.dtype == torch.float32 for x in (*results, backward[0]))


def test_fake_tensors_have_the_real_shapes(engine: str) -> None:
    """What torch.compile and export believe, dtypes and strides included."""
    for channels, save, compatibility in ((1, False, None), (3, True, torch.rand(2, 2))):
        scores, guide = torch.randn(2, 2, 5, 6), 255 * torch.rand(2, channels, 5, 6)
        weight = torch.tensor(2.0)
        real = every_operator(scores, guide, compatibility, weight, save, engine)
        with FakeTensorMode() as mode:
            inputs = [None if x is None else mode.from_tensor(x) for x in (scores, guide, compatibility, weight)]
            fake = every_operator(*inputs, save, engine)
        for r, f in zip(real, fake, strict=True):
            assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


def every_operator(
    scores: torch.Tensor,
    guide: torch.Tensor,
    compatibility: torch.Tensor | None,
    weight: torch.Tensor,
    save: bool,
    engine: str,
) -> list[torch.Tensor]:
    ops = torch.ops.segmodel
    planes = ops.guide_moments(guide, 3, 1.0, engine)
    filtered = ops.guided_filter(scores.mT, planes.mT, 3, "clipped", False, engine)
    phi, beliefs = ops.guidance_crf(scores, planes, compatibility, weight, 3, "clipped", 2, save, engine)
    box = ops.box_filter(scores.mT, 3, "clipped", False)
    gradients = ops.guidance_crf_backward(scores, beliefs, planes, compatibility, weight, 3, "clipped", engine)
    return [planes, filtered, phi, beliefs, box, *gradients]


def test_a_prepared_guide_carries_its_options() -> None:
    guide = 255 * torch.rand(1, 1, 5, 6)
    prepared = prepare_guide(guide, radius=1, eps=4, border="constant")
    assert isinstance(prepared, PreparedGuide)
    assert (prepared.radius, prepared.eps, prepared.border) == (1, 4.0, "constant")
    scores = torch.randn(1, 2, 5, 6)
    expected = guided_filter(scores, guide, radius=1, eps=4, border="constant")
    torch.testing.assert_close(guided_filter(scores, prepared), expected, rtol=0, atol=0)


def test_nan_reaches_its_windows_and_no_other_label() -> None:
    scores, guide = torch.randn(1, 2, 20, 20), 255 * torch.rand(1, 3, 20, 20)
    scores[0, 0, 10, 10] = float("nan")
    filtered = guided_filter(scores, guide, radius=1)
    assert filtered[0, 0, 8:13, 8:13].isnan().all()
    assert not filtered[0, 1].isnan().any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_does_not_reach_the_next_block_of_labels(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_planes, "BLOCK", 1)  # one label a block
    scores, guide = torch.randn(1, 3, 7, 8), 255 * torch.rand(1, 3, 7, 8)
    expected = guided_filter(scores, guide, radius=2)
    scores[0, 1, :, 7] = bad
    filtered = guided_filter(scores, guide, radius=2)
    assert not filtered[0, 1, :, 5:].isfinite().any()
    torch.testing.assert_close(filtered[:, ::2], expected[:, ::2], rtol=0, atol=0)


def test_empty_batch() -> None:
    assert guided_filter(torch.zeros(0, 2, 4, 5), torch.zeros(0, 3, 4, 5)).shape == (0, 2, 4, 5)
