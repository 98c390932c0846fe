"""The JavaScript of the live figures against the float64 oracle, in an embedded V8."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodel import reference
from segmodel.reference.arrays import bilinear_upsample, box_mean, box_sum, one_hot, softmax
from segmodel.reference.bilinear_target import coarse_targets, fit_scores
from segmodel.reference.guidance_crf import guidance_crf_steps, guidance_functional, potts
from segmodel.reference.guided_filter import BORDERS, guided_filter, guided_filter_adjoint

mini_racer = pytest.importorskip("py_mini_racer", reason="the embedded V8 is an extra: pip install 'segmodel[test]'")

SCRIPT = Path(reference.__file__).with_name("arithmetic.js")
BOUND = 1e-8
"""Both are float64; 6e-10 was met, where colours up to 255 beside an epsilon of 0.01 cost the digits."""
HELPERS = """
const planes = (maps) => maps.map((plane) => Float64Array.from(plane));
const told = (value) => JSON.stringify(value, (_, v) => (ArrayBuffer.isView(v) ? Array.from(v) : v));
"""


class Engine:
    """Evaluates JavaScript with named values of Python; maps go as lists of planes."""

    def __init__(self) -> None:
        self.context = mini_racer.MiniRacer()
        self.context.eval(SCRIPT.read_text(encoding="utf-8") + HELPERS)

    def __call__(self, code: str, **values: Any) -> Any:
        names = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
        text = self.context.eval(f"(() => {{ const {names}; return told({code}); }})()")
        return json.loads(text)


@pytest.fixture(scope="module")
def js() -> Engine:
    return Engine()


def planes(array: np.ndarray) -> list[list[float]]:
    """(H, W, C) as a list of planes."""
    return [plane.ravel().tolist() for plane in np.moveaxis(array, 2, 0)]


def unplanes(maps: list[list[float]], height: int, width: int) -> np.ndarray:
    return np.stack([np.reshape(plane, (height, width)) for plane in maps], axis=2)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any]]:
    """A guide (H, W, 1 or 3) of noise, steps or one colour, and the settings of the filter."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 11))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bands = draw(st.sampled_from((1, 3)))
    kind = draw(st.sampled_from(("noise", "steps", "flat", "grey")))
    guide = rng.uniform(0, 255, (height, width, bands if kind != "grey" else 1))
    guide = {"noise": guide, "steps": 255 * (guide > 128.0), "flat": np.full_like(guide, guide[0, 0, 0]),
             "grey": guide.repeat(bands, axis=2)}[kind]  # fmt: skip
    options = {"radius": draw(st.integers(0, 12)), "epsilon": draw(st.sampled_from((0.01, 1.0, 300.0))),
               "border": draw(st.sampled_from(BORDERS))}  # fmt: skip
    return guide, options


PREPARED = "prepareGuide(planes(guide), height, width, options)"


@settings(max_examples=60, deadline=None)
@given(pictures(), st.data())
def test_filter_row_sums_and_rows_of_w(js: Engine, picture: tuple[np.ndarray, dict[str, Any]], data: st.DataObject):
    guide, options = picture
    height, width = guide.shape[:2]
    p = np.random.default_rng(1).normal(size=(height, width, 2))
    pixel = data.draw(st.integers(0, height * width - 1))
    out, sums, row = js(
        f"(() => {{ const m = {PREPARED}; return [planes(p).map((x) => guidedFilter(x, m)), rowSums(m), "
        "rowOfW(pixel, m)]; })()",
        guide=planes(guide), p=planes(p), pixel=pixel, height=height, width=width, options=options,
    )  # fmt: skip
    np.testing.assert_allclose(unplanes(out, height, width), guided_filter(p, guide, **options), rtol=0, atol=BOUND)
    here, ones = np.zeros((height * width, 1)), np.ones((height, width, 1))
    here[pixel] = 1
    expected = guided_filter_adjoint(here.reshape(height, width, 1), guide, **options)  # row i of W is W^T e_i
    np.testing.assert_allclose(row, expected.ravel(), rtol=0, atol=BOUND)
    np.testing.assert_allclose(sums, guided_filter(ones, guide, **options).ravel(), rtol=0, atol=BOUND)


@settings(max_examples=60, deadline=None)
@given(pictures(), st.integers(2, 5), st.sampled_from(("potts", "symmetric", "any")), st.integers(0, 4), st.data())
def test_algorithm_1_and_its_functional(js: Engine, picture: tuple[np.ndarray, dict[str, Any]], labels: int,
                                        kind: str, iterations: int, data: st.DataObject):  # fmt: skip
    guide, options = picture
    rng = np.random.default_rng(labels)
    scores, mu = rng.normal(size=(*guide.shape[:2], labels)) * 3, rng.normal(size=(labels, labels))
    mu = {"potts": potts(labels), "symmetric": mu + mu.T, "any": mu}[kind]
    weight = data.draw(st.sampled_from((0.0, 0.5, 2.0, 8.0)))
    told = js(
        f"(() => {{ const s = planes(scores), m = {PREPARED}; return [guidanceCrfSteps(s, m, own), "
        "guidanceCrf(s, m, own)]; })()",
        scores=planes(scores), guide=planes(guide), height=guide.shape[0], width=guide.shape[1], options=options,
        own={"weight": weight, "iterations": iterations, "mu": None if kind == "potts" else mu.tolist()},
    )  # fmt: skip
    expected = guidance_crf_steps(scores, guide, compatibility=mu, weight=weight, iterations=iterations, **options)
    bound = BOUND * (1 + weight * np.abs(mu).sum()) ** (1 + iterations)  # general mu may swing, and swings amplify
    for step, phi in zip(told[0], expected, strict=True):
        np.testing.assert_allclose(unplanes(step["phi"], *guide.shape[:2]), phi, rtol=0, atol=min(bound, 1e-5))
        np.testing.assert_allclose(unplanes(step["q"], *guide.shape[:2]), softmax(phi), rtol=0, atol=min(bound, 1e-5))
    np.testing.assert_array_equal(told[1], told[0][-1]["phi"])
    if options["border"] == "clipped":
        radius, epsilon = options["radius"], options["epsilon"]
        functionals = [guidance_functional(softmax(phi), scores, guide, compatibility=mu, weight=weight,
                                           radius=radius, epsilon=epsilon) for phi in expected]  # fmt: skip
        np.testing.assert_allclose([step["functional"] for step in told[0]], functionals, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("balance", [0.0, 0.4, 1.0])
def test_the_balance_leaves_out_a_share_of_the_plain_mean(js: Engine, balance: float):
    rng = np.random.default_rng(0)
    guide, q = rng.uniform(0, 255, (7, 9, 3)), softmax(rng.normal(size=(7, 9, 3)))
    told = js(f"planes(q).map((p) => guidedFilter(p, {PREPARED}))", guide=planes(guide), q=planes(q), height=7, width=9,
              options={"radius": 2, "epsilon": 1.0, "balance": balance})  # fmt: skip
    mean = box_mean(box_mean(q, radius=2), radius=2)
    expected = guided_filter(q, guide, radius=2) - balance * mean
    np.testing.assert_allclose(unplanes(told, 7, 9), expected, rtol=0, atol=BOUND)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1), st.sampled_from(("any", "symmetric", "semi-definite", "potts")))
def test_when_the_functional_is_promised_to_go_down(js: Engine, labels: int, seed: int, kind: str):
    rng = np.random.default_rng(seed)
    mu, centre = rng.normal(size=(labels, labels)), np.eye(labels) - 1 / labels
    free = rng.normal(size=(labels, 1))
    mu = {"any": mu, "symmetric": mu + mu.T, "semi-definite": -(mu[:, 1:] @ mu[:, 1:].T) + free + free.T,
          "potts": potts(labels)}[kind]  # fmt: skip
    expected = np.allclose(mu, mu.T) and np.linalg.eigvalsh(centre @ (mu + mu.T) @ centre).max() < 1e-9
    assert js("promised(mu)", mu=mu.tolist()) == expected
    assert expected or kind in ("any", "symmetric")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 15))
def test_box_sums(js: Engine, height: int, width: int, radius: int):
    x = np.random.default_rng(0).normal(size=(height, width, 1))
    told = js("boxSum(x, height, width, radius)", x=x.ravel().tolist(), height=height, width=width, radius=radius)
    np.testing.assert_allclose(told, box_sum(x, radius=radius).ravel(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_interpolation_and_means_of_blocks(js: Engine, factor: int):
    x = np.random.default_rng(0).normal(size=(3, 5, 1))
    told = js("interpolate(x, [3, 5], size)", x=x.ravel().tolist(), size=[3 * factor, 5 * factor])
    np.testing.assert_allclose(told, bilinear_upsample(x, factor=factor).ravel(), rtol=0, atol=1e-14)
    padded = np.pad(x[..., 0], ((0, -3 % factor), (0, -5 % factor)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor).mean((1, 3))
    told = js("blockMeans(x, [3, 5], factor)", x=x.ravel().tolist(), factor=factor)
    np.testing.assert_allclose(told, blocks.ravel(), rtol=0, atol=1e-14)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=48, max_size=48), st.sampled_from((4, 8, 16)))
def test_what_cells_along_a_line_are_asked_and_can_say(js: Engine, line: list[int], cell: int):
    p = one_hot(np.array([line]).repeat(cell, axis=0), 2)
    told = js("lineOfCells(line, cell, 60)", line=line, cell=cell)
    np.testing.assert_allclose(told["histogram"], coarse_targets(p, factor=cell)[0, :, 1], rtol=0, atol=1e-12)
    scores = fit_scores(p, factor=cell, steps=60)
    np.testing.assert_allclose(told["best"], softmax(scores)[0, :, 1], rtol=0, atol=1e-9)
    said = softmax(bilinear_upsample(scores, factor=cell))[0, :, 1]
    np.testing.assert_allclose(told["said"], said, rtol=0, atol=1e-9)
    assert told["wrong"] == ((said > 0.5) != np.array(line)).sum()


def test_the_script_is_small_and_depends_on_nothing():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert not any(word in text for word in ("import ", "require(", "document.", "window.", "fetch("))
