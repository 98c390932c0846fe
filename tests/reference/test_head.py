"""The head: each step against its literal form, and every gradient against finite differences."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import check_gradient, few, some

from segmodel.reference.arrays import bilinear_upsample
from segmodel.reference.context_crf import (
    Ring,
    context_crf,
    feature_context,
    label_message,
    label_message_box_rings,
    label_message_max_pool,
    max_pool,
    normalise,
    normalised_max_pool,
    ring_message_by_definition,
)
from segmodel.reference.guidance_crf import guidance_crf
from segmodel.reference.head import (
    HeadConfig,
    area_average,
    bilinear_kernel,
    head,
    learnable_upsampling,
)
from segmodel.reference.patch_prediction import patch_rearrange_by_loops

EXACT = {"rtol": 0, "atol": 1e-11}
SIZE = st.integers(1, 6)


def draw_parameters(
    config: HeadConfig, *, width: int, classes: int, seed: int, hidden: int = 3
) -> dict[str, np.ndarray]:
    """Random parameters of every kind, none at its initial value."""
    rng = np.random.default_rng(seed)
    outputs, f, hidden = config.patch_size**2 * classes, config.factor, 3
    shapes: dict[str, tuple[int, ...]] = {"centre.weight": (width, outputs), "centre.bias": (outputs,)}
    shapes |= {f"ring.{i}.weight": (3, 3, width, outputs) for i in range(len(config.rings))}
    for step in range(config.label_steps if config.label_context != "none" else 0):
        name = f"label.{step}."
        if config.label_context == "max_pool":
            shapes[f"{name}hidden.weight"] = (7, 7, classes, hidden)
        else:
            shapes |= {f"{name}ring.{i}.weight": (3, 3, classes, hidden) for i in range(len(config.rings))}
        shapes[f"{name}hidden.bias"] = (hidden,)
        shapes[f"{name}output.weight"], shapes[f"{name}output.bias"] = (hidden, classes), (classes,)
    if f > 1:
        shapes["upsampling.weight"] = (2 * f, 2 * f, classes)
    shapes |= {"crf.compatibility": (classes, classes), "crf.weight": ()}
    return {name: np.array(rng.normal(size=shape) * 0.4) for name, shape in shapes.items()}


CONFIG = st.builds(
    HeadConfig,
    stride=st.sampled_from([8, 16]),
    patch_size=st.sampled_from([1, 2, 4]),
    rings=st.sampled_from([(), (Ring(1, 1),), (Ring(0, 2), Ring(2, 1))]),
    label_context=st.sampled_from(["max_pool", "box_rings", "none"]),
    label_steps=st.integers(0, 2),
    label_pool=st.sampled_from([1, 3, 5]),
    guidance=st.booleans(),
    radius=st.integers(0, 3),
    epsilon=st.sampled_from([1.0, 40.0]),
    iterations=st.integers(0, 3),
    border=st.sampled_from(["clipped", "constant"]),
)
PICTURE = {"height": st.integers(1, 40), "width": st.integers(1, 40), "classes": st.integers(1, 3)}


def draw_inputs(config: HeadConfig, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(-(-height // config.stride), -(-width // config.stride), 2))
    return features, rng.uniform(0, 255, (height, width, 3))


@some
@given(config=CONFIG, **PICTURE, seed=st.integers(0, 99))
def test_the_head_is_the_chain_of_the_paper_s_steps(config, height, width, classes, seed) -> None:
    """Fig. 4 again, written with the literal forms only."""
    parameters = draw_parameters(config, width=2, classes=classes, seed=seed)
    features, image = draw_inputs(config, height, width, seed)
    n, g = config.patch_size, config.guidance_stride
    coarse = np.einsum("yxd,de->yxe", features, parameters["centre.weight"]) + parameters["centre.bias"]
    for i, ring in enumerate(config.rings):
        coarse = coarse + ring_message_by_definition(features, parameters[f"ring.{i}.weight"], ring=ring)
    first = estimate = patch_rearrange_by_loops(coarse, patch_size=n)
    for t in range(config.label_steps if config.label_context != "none" else 0):
        p = {key.removeprefix(f"label.{t}."): value for key, value in parameters.items()}
        rest = p["hidden.bias"], p["output.weight"], p["output.bias"]
        if config.label_context == "max_pool":
            message = label_message_max_pool(estimate, p["hidden.weight"], *rest, pool=config.label_pool)
        else:
            kernels = [parameters[f"label.{t}.ring.{i}.weight"] for i in range(len(config.rings))]
            rings = [Ring(n * radius, n * dilation) for radius, dilation in config.rings]
            message = label_message_box_rings(estimate, kernels, *rest, rings=rings)
        estimate = first + message
    if config.factor > 1:
        estimate = upsampling_by_definition(estimate, parameters["upsampling.weight"])
    estimate = estimate[: -(-height // g), : -(-width // g)]
    if config.guidance:
        options = {"radius": config.radius, "epsilon": config.epsilon, "iterations": config.iterations}
        mu, weight = parameters["crf.compatibility"], float(parameters["crf.weight"])
        guide = averages_by_definition(image, g)
        estimate = guidance_crf(estimate, guide, compatibility=mu, weight=weight, border=config.border, **options)
    expected = bilinear_upsample(estimate, factor=g)[:height, :width]
    np.testing.assert_allclose(head(features, image, parameters, config)[0], expected, rtol=0, atol=1e-9)


SMALL_PICTURE = PICTURE | {"height": st.integers(1, 20), "width": st.integers(1, 20)}  # up to two cells of 16 a side


@few
@given(config=CONFIG, **SMALL_PICTURE, seed=st.integers(0, 99))
def test_every_gradient(config, height, width, classes, seed) -> None:
    parameters = draw_parameters(config, width=2, classes=classes, seed=seed)
    features, image = draw_inputs(config, height, width, seed)
    y = np.random.default_rng(seed).normal(size=(height, width, classes))
    _, pullback = head(features, image, parameters, config)
    features_gradient, gradients = pullback(y)

    def loss(**changed: np.ndarray) -> float:
        arguments = parameters | changed
        return float((head(arguments.pop("features", features), image, arguments, config)[0] * y).sum())

    check_gradient(lambda x: loss(features=x), features, features_gradient)
    unused = set() if config.guidance else {"crf.compatibility", "crf.weight"}
    assert set(gradients) == set(parameters) - unused
    for name, gradient in gradients.items():
        check_gradient(lambda x, name=name: loss(**{name: x}), parameters[name], gradient)


def test_gradients_are_far_above_the_tolerance() -> None:
    config = HeadConfig(rings=(Ring(0, 1), Ring(1, 1)), label_pool=3, radius=1, label_steps=2)
    parameters = draw_parameters(config, width=2, classes=3, seed=0)
    features, image = draw_inputs(config, 37, 50, 0)
    y = np.random.default_rng(0).normal(size=(37, 50, 3))
    features_gradient, gradients = head(features, image, parameters, config)[1](y)
    assert min(np.abs(gradient).max() for gradient in (features_gradient, *gradients.values())) > 1e-2


@few
@given(**PICTURE, seed=st.integers(0, 99), patch_size=st.sampled_from([1, 2]))
def test_what_is_absent_is_fixed(height, width, classes, seed, patch_size) -> None:
    """No up-sampling brush: bilinear; no compatibility: Potts; no weight: 2. All gradients follow."""
    config = HeadConfig(patch_size=patch_size, rings=(), label_context="none", radius=1)
    parameters = draw_parameters(config, width=2, classes=classes, seed=seed)
    features, image = draw_inputs(config, height, width, seed)
    names = ("centre.weight", "centre.bias")
    bare = {name: parameters[name] for name in names}
    spelt_out = bare | {
        "upsampling.weight": np.repeat(bilinear_kernel(config.factor)[:, :, None], classes, axis=2),
        "crf.compatibility": 1 - np.eye(classes),
        "crf.weight": np.array(2.0),
    }
    (a, a_pullback), (b, b_pullback) = (head(features, image, each, config) for each in (bare, spelt_out))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    y = np.random.default_rng(seed).normal(size=a.shape)
    (a_features, a_gradients), (b_features, b_gradients) = a_pullback(y), b_pullback(y)
    np.testing.assert_allclose(a_features, b_features, rtol=0, atol=1e-8)
    for name in names:
        np.testing.assert_allclose(a_gradients[name], b_gradients[name], rtol=0, atol=1e-8)
    assert "upsampling.weight" not in a_gradients


def upsampling_by_definition(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Every cell of the replicated map adds its brush to a canvas, then the canvas is cut."""
    f = len(kernel) // 2
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    canvas = np.zeros((f * (padded.shape[0] + 1), f * (padded.shape[1] + 1), x.shape[2]))
    for row, column in np.ndindex(padded.shape[:2]):
        canvas[row * f : row * f + 2 * f, column * f : column * f + 2 * f] += padded[row, column] * kernel
    start = 3 * f // 2
    return canvas[start : start + f * x.shape[0], start : start + f * x.shape[1]]


@few
@given(SIZE, SIZE, st.sampled_from([2, 4, 8]), st.integers(0, 99))
def test_learnable_upsampling(height, width, factor, seed) -> None:
    rng = np.random.default_rng(seed)
    x, kernel = rng.normal(size=(height, width, 2)), rng.normal(size=(2 * factor, 2 * factor, 2))
    up, pullback = learnable_upsampling(x, kernel)
    np.testing.assert_allclose(up, upsampling_by_definition(x, kernel), **EXACT)
    y = rng.normal(size=up.shape)
    x_gradient, gradients = pullback(y)
    check_gradient(lambda z: float((learnable_upsampling(z, kernel)[0] * y).sum()), x, x_gradient)
    check_gradient(lambda k: float((learnable_upsampling(x, k)[0] * y).sum()), kernel, gradients["upsampling.weight"])
    bilinear = np.repeat(bilinear_kernel(factor)[:, :, None], 2, axis=2)
    np.testing.assert_allclose(learnable_upsampling(x, bilinear)[0], bilinear_upsample(x, factor=factor), **EXACT)


def averages_by_definition(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = image.shape[:2]
    out = np.zeros((-(-height // factor), -(-width // factor), image.shape[2]))
    for row, column, a, b in np.ndindex(*out.shape[:2], factor, factor):
        out[row, column] += image[min(row * factor + a, height - 1), min(column * factor + b, width - 1)] / factor**2
    return out


@some
@given(st.integers(1, 11), st.integers(1, 11), st.sampled_from([1, 2, 4]), st.integers(0, 99))
def test_area_average(height, width, factor, seed) -> None:
    image = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    np.testing.assert_allclose(area_average(image, factor=factor), averages_by_definition(image, factor), **EXACT)


@some
@given(SIZE, SIZE, st.sampled_from([1, 3, 7, 13]), st.integers(0, 99))
def test_max_pool_and_normalise(height, width, size, seed) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, height, width, 2))
    pooled, pool_pullback = max_pool(x, size=size)
    unit, unit_pullback = normalise(pooled)
    np.testing.assert_allclose(unit, normalised_max_pool(x, size=size), **EXACT)
    check_gradient(lambda z: float((max_pool(z, size=size)[0] * y).sum()), x, pool_pullback(y)[0], step=1e-7)
    check_gradient(lambda z: float((normalise(z)[0] * y).sum()), pooled, unit_pullback(y)[0])
    assert pool_pullback(y)[1] == {}
    assert unit_pullback(y)[1] == {}


def test_ties_in_the_max_pool_go_to_the_first() -> None:
    _, pullback = max_pool(np.zeros((2, 3, 1)), size=3)
    np.testing.assert_array_equal(pullback(np.ones((2, 3, 1)))[0][..., 0], [[4, 2, 0], [0, 0, 0]])


@pytest.mark.parametrize("label_context", ["max_pool", "box_rings"])
def test_the_second_step_reads_the_first_one_s_result(label_context: str) -> None:
    config = HeadConfig(label_context=label_context, label_steps=2, label_pool=3, rings=(Ring(0, 1),))
    parameters = draw_parameters(config, width=2, classes=3, seed=0)
    scores = np.random.default_rng(0).normal(size=(5, 4, 3))
    first = scores + label_message(scores, parameters, config, 0)[0]
    second = scores + label_message(first, parameters, config, 1)[0]
    np.testing.assert_array_equal(context_crf(scores, parameters, config)[0], second)


def test_the_defaults_are_the_authors_full_model() -> None:
    config = HeadConfig()
    assert (config.stride, config.patch_size, config.rings) == (16, 2, (Ring(2, 6), Ring(4, 12)))
    assert (config.label_context, config.label_steps, config.label_pool) == ("max_pool", 1, 25)
    assert (config.guidance, config.radius, config.epsilon, config.iterations) == (True, 3, 1.0, 3)
    assert (config.border, config.guidance_stride, config.factor) == ("clipped", 4, 2)
    with pytest.raises(FrozenInstanceError):
        config.stride = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("stride", "patch_size", "g", "factor"),
    [(16, 1, 4, 4), (16, 4, 4, 1), (16, 8, 2, 1), (32, 1, 4, 8), (8, 2, 4, 1), (8, 1, 4, 2), (16, 16, 1, 1)],
)
def test_strides(stride: int, patch_size: int, g: int, factor: int) -> None:
    config = HeadConfig(stride=stride, patch_size=patch_size)
    assert (config.guidance_stride, config.factor) == (g, factor)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("label_context", {"label_context": "boxes"}),
        ("patch_size", {"patch_size": 3}),
        ("stride", {"stride": 12, "patch_size": 1}),
        ("stride", {"stride": 20, "patch_size": 2}),
    ],
)
def test_bad_configurations_are_named(name: str, options: dict) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected"):
        HeadConfig(**options)


def test_features_must_fit_the_image() -> None:
    parameters = {"centre.weight": np.zeros((1, 4)), "centre.bias": np.zeros(4)}
    config = HeadConfig(rings=(), label_context="none")
    for shape in ((2, 1, 1), (1, 2, 1)):
        with pytest.raises(ValueError, match=r"features: expected \(h, w\) = \(1, 1\)"):
            head(np.zeros(shape), np.zeros((16, 16, 3)), parameters, config)
    with pytest.raises(ValueError, match="image: expected"):
        head(np.zeros((1, 1, 1)), np.zeros((16, 16)), parameters, config)


def test_feature_context_is_laid_out_in_space() -> None:
    config = HeadConfig(rings=(Ring(1, 2),))
    parameters = draw_parameters(config, width=2, classes=2, seed=3)
    features = np.random.default_rng(3).normal(size=(3, 4, 2))
    scores, _ = feature_context(features, parameters, config)
    assert scores.shape == (6, 8, 2)
