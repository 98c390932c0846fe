"""What the tests of the operators share: random cases of every shape, layout and guide, and the way to the oracle."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

some = settings(max_examples=60, deadline=None, derandomize=True)
few = settings(max_examples=25, deadline=None, derandomize=True)

# (1, 1), one row, one column, under the window, odd, and wider than high.
SIZES = [(1, 1), (1, 7), (6, 1), (2, 3), (5, 5), (7, 9), (8, 17)]
LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed", "expanded")
# Flat windows have a covariance near zero: float32 guides lose digits in (I_j - mu) however the sums are made.
TEXTURED = ("noise", "extremes", "ramp")
FLAT = ("constant", "two_valued", "step", "faint")
SCALES = (1e-6, 1.0, 1e4)
EPS = (1.0, 37.0, 1e4)  # and 0.01 in float64


def make_guide(kind: str, shape: tuple[int, int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Colours in 0..255, N C H W, rounded to float32 so that both sides see the same picture."""
    n, channels, height, width = shape
    if kind == "noise":
        guide = rng.uniform(0, 255, shape)
    elif kind == "extremes":
        guide = 255.0 * rng.integers(0, 2, shape)
    elif kind == "ramp":
        guide = np.linspace(0, 255, width) + rng.uniform(-3, 3, shape)
    elif kind == "constant":
        guide = np.full(shape, 200.0)
    elif kind == "two_valued":  # grey in colour: every covariance has rank one
        guide = np.repeat(255.0 * rng.integers(0, 2, (n, 1, height, width)), channels, axis=1)
    elif kind == "step":
        guide = np.where(np.arange(width) < width // 2, 30.0, 220.0) + np.zeros(shape)
    else:  # faint: grain far below eps on top of a bright colour
        guide = 250 + rng.uniform(-0.5, 0.5, shape)
    return np.clip(guide, 0, 255).astype(np.float32)


def lay_out(x: np.ndarray, layout: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """A tensor with these values and awkward strides; "expanded" repeats the first image and label."""
    tensor = torch.from_numpy(np.ascontiguousarray(x)).to(dtype)
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"), dtype=dtype)
        wide[..., ::2] = tensor
        return wide[..., ::2]
    if layout == "transposed":  # torch calls this layout contiguous where it asks for the memory format alone
        return tensor.mT.contiguous().mT
    if layout == "expanded":
        return tensor[:1, :1].expand_as(tensor)
    return tensor


@dataclass(frozen=True)
class Case:
    """One random call: arrays in float64 as the operator sees them, N C H W."""

    scores: Tensor
    guide: Tensor
    kind: str
    radius: int
    border: str
    eps: float = 1.0

    @property
    def options(self) -> dict:
        return {"radius": self.radius, "border": self.border}

    @property
    def ours(self) -> dict:
        """All options, as the operators call them."""
        return {**self.options, "eps": self.eps}

    @property
    def theirs(self) -> dict:
        """All options, as the reference calls them."""
        return {**self.options, "epsilon": self.eps}


@st.composite
def cases(
    draw, *, labels=(1, 2, 21), kinds=TEXTURED, scales=(1.0,), sizes=SIZES, batch=(1, 2), eps=(1.0,), channels=(1, 3)
) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    height, width = draw(st.sampled_from(sizes))
    n, bands = draw(st.sampled_from(batch)), draw(st.sampled_from(channels))
    kind = draw(st.sampled_from(kinds))
    scores = draw(st.sampled_from(scales)) * rng.normal(size=(n, draw(st.sampled_from(labels)), height, width))
    scores = scores.astype(np.float32).astype(np.float64)
    layout = draw(st.sampled_from(LAYOUTS))
    guide = make_guide(kind, (n, bands, height, width), rng)
    return Case(
        lay_out(scores, layout),
        lay_out(guide, draw(st.sampled_from(LAYOUTS[:-1]))),
        kind,
        draw(st.integers(0, 4)),
        draw(st.sampled_from(("clipped", "constant"))),
        draw(st.sampled_from(eps)),
    )


def channel_last(x: Tensor) -> list[np.ndarray]:
    """The images of an N C H W tensor as the reference wants them: H W C, float64."""
    return [image.detach().permute(1, 2, 0).double().cpu().numpy() for image in x]


def channel_first(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.moveaxis(image, -1, 0) for image in images])


def assert_close(actual: Tensor, expected: np.ndarray, bound: float) -> None:
    """Absolute error at most ``bound`` times the largest expected value, or 1."""
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual.detach().double().cpu().numpy(), expected, rtol=0, atol=bound * scale)
