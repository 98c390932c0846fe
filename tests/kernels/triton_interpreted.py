"""Every Triton kernel against the float64 oracle: ``triton_interpreted.py EXAMPLES NAME...``.

Run by tests/kernels/test_triton.py with TRITON_INTERPRET=1, and without it on a GPU. Maps stay within 6 x 9, and
programs have 4 rows where they can: an interpreted program takes tens of milliseconds.
"""

import os
import sys

import numpy as np
import torch
import triton
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from kernels_tools import (
    FLAT,
    TEXTURED,
    Case,
    assert_close,
    cases,
    channel_first,
    channel_last,
    lay_out,
    make_guide,
)

from segmodel.kernels import guidance_crf, guided_filter, prepare_guide, triton_guided_filter, triton_moments
from segmodel.kernels.triton_guidance_crf import update, update_backward
from segmodel.reference import arrays
from segmodel.reference import guidance_crf as algorithm
from segmodel.reference import guided_filter as reference

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
EXAMPLES = int(sys.argv[1]) if __name__ == "__main__" else 25
# Not shrunk: an interpreted example is slow, and small already.
examples = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
SMALL = [(1, 1), (1, 5), (4, 1), (3, 3), (5, 4), (6, 9)]
# Running sums of at most 16 rows err a little more than the torch path's; see its bounds for the rest.
BOUND = {"textured": 2e-5, "flat": 2e-4}
# One rounding of the result: 2^-11 and 2^-8 of it.
# Half of a unit in the last place; of bfloat16 a whole one: the interpreter cuts off what a GPU rounds.
ROUNDING = {torch.float32: 0.0, torch.float16: 5e-4, torch.bfloat16: 8e-3}
dtypes = st.sampled_from(tuple(ROUNDING))
small = {"labels": (1, 2), "sizes": SMALL, "batch": (1,)}
many = small | {"sizes": [(1, 5), (4, 5), (6, 9)], "channels": (2, 4, 6)}  # 16, which take minutes, in examples
epsilons = st.sampled_from((0.5, 1.0, 40.0))


def one_window(radius: int) -> int:
    """About the narrowest tiles that windows allow: most windows lie in two of them."""
    return max(4, triton.next_power_of_2(2 * radius + 1))


def small_columns(radius: int) -> int:
    """Tiles of 16 columns, or of one window: a 6 x 9 map has several of them side by side."""
    return 16 if radius <= triton_guided_filter.NARROW else one_window(radius)


def two_images() -> Case:
    """Two images, an odd number of labels, and windows that end where a tile does."""
    rng = np.random.default_rng(0)
    scores, guide = rng.normal(size=(2, 3, 6, 9)), make_guide("noise", (2, 3, 6, 9), rng)
    return Case(lay_out(scores, "contiguous"), lay_out(guide, "contiguous"), "noise", 1, "clipped")


def with_channels(channels: int) -> Case:
    rng = np.random.default_rng(channels)
    scores, guide = rng.normal(size=(1, 3, 5, 6)), make_guide("noise", (1, channels, 5, 6), rng)
    return Case(lay_out(scores, "contiguous"), lay_out(guide, "contiguous"), "noise", 1, "clipped")


def moments_equal_torch(case: Case, eps: float) -> None:
    guide = case.guide.float().to(DEVICE)
    torch_planes = prepare_guide(guide, eps=eps, backend="torch", **case.options).planes
    planes = prepare_guide(guide, eps=eps, backend="triton", **case.options).planes
    # Colours and means to one unit of float32 at 255; L and 1 / D divide by variances of at least eps.
    torch.testing.assert_close(planes, torch_planes, rtol=2e-4, atol=6e-5)


@examples
@example(two_images(), 40.0)
@given(cases(**small, kinds=TEXTURED + FLAT), epsilons)
def guide_moments(case: Case, eps: float) -> None:
    moments_equal_torch(case, eps)


@settings(examples, max_examples=max(4, EXAMPLES // 4))
@example(with_channels(16), 40.0)
@given(cases(**many, kinds=TEXTURED + FLAT), epsilons)
def moments_of_many_channels(case: Case, eps: float) -> None:
    moments_equal_torch(case, eps)


def filter_equals_the_oracle(case: Case, adjoint: bool, dtype: torch.dtype, eps: float) -> None:
    oracle = reference.guided_filter_adjoint if adjoint else reference.guided_filter
    scores = case.scores.to(dtype)
    images = zip(channel_last(scores), channel_last(case.guide), strict=True)
    expected = channel_first([oracle(s, g, epsilon=eps, **case.options) for s, g in images])
    planes = prepare_guide(case.guide.float().to(DEVICE), eps=eps, backend="torch", **case.options).planes
    actual = triton_guided_filter.filter_planes(scores.to(DEVICE), planes, case.radius, case.border, adjoint)
    assert actual.dtype == dtype
    assert_close(actual, expected, BOUND["flat" if case.kind in FLAT else "textured"] + ROUNDING[dtype])


@examples
@example(two_images(), False, torch.float32, 0)
@given(cases(**small, kinds=TEXTURED + FLAT), st.booleans(), dtypes, st.sampled_from((0, 10**9)))
def filter_and_adjoint(case: Case, adjoint: bool, dtype: torch.dtype, programs: int) -> None:
    triton_guided_filter.PROGRAMS = programs  # few: tiles of many rows and two labels; many: four rows and one label
    filter_equals_the_oracle(case, adjoint, dtype, 1.0)


@settings(examples, max_examples=max(4, EXAMPLES // 4))
@example(with_channels(16), False, 40.0)
@example(with_channels(6), True, 0.5)
@given(cases(**many), st.booleans(), epsilons)
def many_channels_and_adjoint(case: Case, adjoint: bool, eps: float) -> None:
    triton_guided_filter.PROGRAMS = 10**9
    filter_equals_the_oracle(case, adjoint, torch.float32, eps)


def tall() -> None:
    """Tiles of 32 rows, which begin at rows 0, 32 and 64; and how far a NaN reaches, in its own label alone."""
    rng = np.random.default_rng(0)
    case = Case(lay_out(rng.normal(size=(1, 2, 70, 5)), "contiguous"),
                lay_out(make_guide("noise", (1, 3, 70, 5), rng), "contiguous"), "noise", 1, "clipped")  # fmt: skip
    triton_guided_filter.PROGRAMS = 0
    for adjoint in (False, True):
        filter_equals_the_oracle(case, adjoint, torch.float32, 1.0)
    planes = prepare_guide(case.guide.float().to(DEVICE), backend="torch", **case.options).planes
    scores = case.scores.float().to(DEVICE, copy=True)
    scores[0, 0, 36, 2] = float("nan")
    bad = triton_guided_filter.filter_planes(scores, planes, 1, "clipped", False).isnan().cpu()
    assert bad[0, 0, 34:39].all()  # every pixel with a window that holds it
    assert not bad[0, 1].any()
    assert not bad[0, 0, :34].any()  # running sums go down: to the end of the tile, and of the one that reads it
    assert not bad[0, 0, 96:].any()


@st.composite
def label_maps(draw) -> tuple[torch.Tensor, torch.Tensor, float, bool]:
    labels = draw(st.sampled_from((1, 2, 3, 4, 21, 25, 49)))
    shape = (draw(st.integers(1, 2)), labels, *draw(st.sampled_from(SMALL)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    first, second = (torch.from_numpy(rng.normal(size=shape)) for _ in range(2))
    first = draw(st.sampled_from((1.0, 30.0))) * first + draw(st.sampled_from((0.0, -300.0)))
    return first, second, draw(st.floats(-4, 4)), draw(st.booleans())


def made(labels: int, height: int = 1, width: int = 3) -> tuple[torch.Tensor, torch.Tensor, float, bool]:
    first, second = torch.randn(2, 1, labels, height, width, generator=torch.Generator().manual_seed(0)).double()
    return first - 300, second, -1.5, True


def impossible_labels() -> tuple[torch.Tensor, torch.Tensor, float, bool]:
    """The whole first block of labels has scores of minus infinity."""
    maps = made(150)
    maps[0][:, :30] = float("-inf")
    return maps


@examples
@example(made(150), True, torch.float32)
@example(made(200), True, torch.float16)
@example(made(1000), False, torch.float32)
@example(made(512), True, torch.float32)
@example(impossible_labels(), True, torch.float32)
@example(made(2, 70, 60), True, torch.float32)
@given(label_maps(), st.booleans(), dtypes)
def update_step(maps: tuple[torch.Tensor, torch.Tensor, float, bool], softmax: bool, dtype: torch.dtype) -> None:
    unary, g, weight, potts = maps
    unary = unary.to(dtype)
    message = g.sum(1, keepdim=True) - g if potts else g
    phi = unary.double() - weight * message
    expected = channel_first([arrays.softmax(x) for x in channel_last(phi)]) if softmax else phi.numpy()
    out = torch.empty_like(g, dtype=torch.float32 if softmax else dtype, device=DEVICE)
    actual = update(unary.to(DEVICE), g.float().to(DEVICE), torch.tensor(weight).to(DEVICE), potts, softmax, out)
    assert_close(actual, expected, 1e-5 + ROUNDING[out.dtype])


@examples
@example(made(150))
@example(made(200))
@example(made(1000))
@example(made(2, 70, 60))
@given(label_maps())
def update_backward_step(maps: tuple[torch.Tensor, torch.Tensor, float, bool]) -> None:
    logits, h, weight, potts = maps
    q = torch.softmax(logits, dim=1)
    d_q = weight * h if potts else -weight * h
    pairs = zip(channel_last(q), channel_last(d_q), strict=True)
    expected = channel_first([arrays.softmax_adjoint(a, b) for a, b in pairs])
    total = logits.float().to(DEVICE, copy=True)
    on_device = (x.float().to(DEVICE) for x in (h, q, torch.tensor(weight)))
    step, d_weight = update_backward(*on_device, potts, total)
    assert_close(step, expected, 1e-5)
    assert_close(total, logits.numpy() + expected, 1e-5)
    # Potts, not scaled by the weight: <h, q> - sum h.
    assert_close(d_weight, ((h * q).sum() - h.sum()).numpy() if potts else np.zeros(()), 1e-4)


@settings(examples, max_examples=max(3, EXAMPLES // 8))
@given(cases(labels=(1, 3), sizes=[(4, 5)], batch=(1,)), st.booleans())
def crf_and_gradients(case: Case, learned: bool) -> None:
    labels = case.scores.shape[1]
    mu = np.random.default_rng(0).uniform(size=(labels, labels)) if learned else None
    options = {"iterations": 2, **case.options}
    scores = case.scores.detach().float().to(DEVICE, copy=True).requires_grad_()
    weight = torch.tensor(1.5, device=DEVICE, requires_grad=True)
    compatibility = None if mu is None else torch.tensor(mu, dtype=torch.float32, device=DEVICE, requires_grad=True)
    phi = guidance_crf(
        scores,
        prepare_guide(case.guide.float().to(DEVICE), backend="torch", **case.options),
        compatibility=compatibility,
        weight=weight,
        iterations=2,
        backend="triton",
    )
    y = torch.randn(phi.shape, generator=torch.Generator().manual_seed(0))
    phi.backward(lay_out(y.numpy(), "transposed", torch.float32).to(DEVICE))
    (s,), (g,), (t,) = map(channel_last, (case.scores, case.guide, y))
    expected = algorithm.guidance_crf(s, g, compatibility=mu, weight=1.5, **options)
    assert_close(phi, channel_first([expected]), BOUND["textured"])
    gradients = algorithm.guidance_crf_gradients(t, s, g, compatibility=mu, weight=1.5, **options)
    assert_close(scores.grad, channel_first([gradients.scores]), 3e-5)
    assert_close(weight.grad, np.array(gradients.weight), 3e-4)
    if compatibility is not None:
        assert_close(compatibility.grad, gradients.compatibility, 3e-4)


def variable() -> None:
    """SEGMODEL_BACKEND=triton reaches the kernels, and the second derivative of the filter works there too."""
    os.environ["SEGMODEL_BACKEND"] = "triton"
    used = []
    original = triton_guided_filter.filter_planes
    triton_guided_filter.filter_planes = lambda *a: used.append(1) or original(*a)
    scores, y = (torch.randn(1, 1, 3, 4, device=DEVICE, requires_grad=True) for _ in range(2))
    guide = 255 * torch.rand(1, 1, 3, 4, device=DEVICE)
    (gradient,) = torch.autograd.grad(guided_filter(scores, guide, radius=1), scores, y, create_graph=True)
    gradient.sum().backward()
    assert len(used) == 3
    assert y.grad is not None


TESTS = {
    "guide_moments": guide_moments,
    "moments_of_many_channels": moments_of_many_channels,
    "many_channels_and_adjoint": many_channels_and_adjoint,
    "tall": tall,
    "filter_and_adjoint": filter_and_adjoint,
    "wide_filter_and_adjoint": filter_and_adjoint,
    "update": update_step,
    "update_backward": update_backward_step,
    "guidance_crf": crf_and_gradients,
    "variable": variable,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    triton_moments.ROWS = 4
    triton_moments.columns_of_tile, triton_guided_filter.columns_of_tile = one_window, small_columns
    narrow = triton_guided_filter.NARROW
    for name in sys.argv[2:]:
        triton_guided_filter.NARROW = 0 if name.startswith("wide") else narrow
        TESTS[name]()
        print(name, "passed")
