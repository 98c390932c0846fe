r"""The whole model after the backbone (Fig. 4), forward and backward.

Features at 1/s -> scores at n/s (Eq. 3, 10) -> label context (Eq. 4, 9) -> learnable up-sampling to 1/g (Eq. 5) ->
guidance CRF (Algorithm 1) -> fixed bilinear up-sampling to the image. Every step returns its value and its *pullback*,
written right under it: a function that turns the gradient of the value into the gradients of what went in.

Parameters are a flat dict of float64 arrays (convolutions (k, k, in, out)); gradients come back under the same names.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import (
    Array,
    Gradients,
    Parameters,
    Pullback,
    as_map,
    bilinear_upsample,
    bilinear_upsample_adjoint,
    require,
)
from .context_crf import ContextConfig, context_crf, feature_context
from .guidance_crf import guidance_crf, guidance_crf_gradients


@dataclass(frozen=True)
class HeadConfig(ContextConfig):
    """The options of the whole head; defaults are the authors' full model, but for its borders."""

    stride: int = 16  # s, image pixels a feature cell (Sec. 7.1.2)
    guidance: bool = True
    radius: int = 3
    epsilon: float = 1.0
    iterations: int = 3
    border: str = "clipped"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.stride % self.patch_size == 0, "patch_size", f"a divisor of {self.stride}", self.patch_size)
        whole = self.stride % (self.patch_size * self.guidance_stride) == 0
        require(whole, "stride", "stride / patch_size up to 4 or a multiple of it", self.stride / self.patch_size)
        require(self.factor == 1 or self.factor % 2 == 0, "stride", "an even up-sampling factor, or 1", self.factor)

    @property
    def guidance_stride(self) -> int:
        """g: image pixels a cell of the guidance CRF; 4 (the paper's footnote 2) unless the scores are finer."""
        return min(4, self.stride // self.patch_size)

    @property
    def factor(self) -> int:
        """f = s / n / g: the learnable up-sampling."""
        return self.stride // self.patch_size // self.guidance_stride


def learnable_upsampling(x: Array, kernel: Array) -> tuple[Array, Pullback]:
    r"""Return the depthwise transposed convolution of Eq. 5: every cell paints a 2f x 2f brush, f pixels apart.

    ``kernel``: (2f, 2f, C). One row and column are replicated around the map first and cropped after, so that the
    bilinear brush :math:`K_t = 1 - |t + 1/2 - f|/f` interpolates up to the border. Parameter: ``upsampling.weight``.
    """
    factor = kernel.shape[0] // 2
    height, width = x.shape[0] + 2, x.shape[1] + 2
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    canvas = np.zeros((factor * (height + 1), factor * (width + 1), x.shape[2]))
    crop = slice(3 * factor // 2, -3 * factor // 2)
    taps = [
        (row, column, np.s_[row : row + factor * height : factor, column : column + factor * width : factor])
        for row, column in np.ndindex(2 * factor, 2 * factor)
    ]
    for row, column, cells in taps:
        canvas[cells] += padded * kernel[row, column]

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        canvas_gradient, kernel_gradient = np.zeros_like(canvas), np.empty_like(kernel)
        canvas_gradient[crop, crop] = gradient
        padded_gradient = np.zeros_like(padded)
        for row, column, cells in taps:
            kernel_gradient[row, column] = (padded * canvas_gradient[cells]).sum(axis=(0, 1))
            padded_gradient += canvas_gradient[cells] * kernel[row, column]
        for _ in range(2):  # the replicated rows hand back to the rows they came from, then the columns
            padded_gradient[1] += padded_gradient[0]
            padded_gradient[-2] += padded_gradient[-1]
            padded_gradient = padded_gradient[1:-1].swapaxes(0, 1)
        return padded_gradient, {"upsampling.weight": kernel_gradient}

    return canvas[crop, crop], pullback


def bilinear_kernel(factor: int) -> Array:
    """Return the (2f, 2f) brush with which :func:`learnable_upsampling` is bilinear interpolation (f even).

    >>> bilinear_kernel(2)[1]
    array([0.1875, 0.5625, 0.5625, 0.1875])
    """
    profile = 1 - abs(np.arange(2 * factor) + 0.5 - factor) / factor
    return np.outer(profile, profile)


def area_average(image: Array, *, factor: int) -> Array:
    """Return the mean colour of factor x factor blocks; the last row and column are replicated to whole blocks.

    >>> area_average(np.arange(3.0).reshape(1, 3, 1), factor=2)[0, :, 0]
    array([0.5, 2. ])
    """
    height, width, channels = image.shape
    padded = np.pad(image, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, channels)
    return blocks.mean(axis=(1, 3))


def upsampling_and_guidance(
    scores: Array, image: Array, parameters: Parameters, config: HeadConfig
) -> tuple[Array, Pullback]:
    """Return the final scores (H, W, C): up-sample by f, crop, guidance CRF at 1/g, up-sample by g, crop (Sec. 5).

    Parameters: ``upsampling.weight`` (absent: fixed bilinear), ``crf.compatibility`` (absent: Potts), ``crf.weight``.
    """
    (height, width, _), g, f = image.shape, config.guidance_stride, config.factor
    learnt = "upsampling.weight" in parameters
    if learnt:
        up, up_pullback = learnable_upsampling(scores, parameters["upsampling.weight"])
    else:
        up, up_pullback = bilinear_upsample(scores, factor=f), lambda y: (bilinear_upsample_adjoint(y, factor=f), {})
    cropped = up[: -(-height // g), : -(-width // g)]
    guide = area_average(image, factor=g)
    options: dict[str, Any] = {
        "compatibility": parameters.get("crf.compatibility"),
        "weight": float(parameters.get("crf.weight", 2.0)),
        "radius": config.radius,
        "epsilon": config.epsilon,
        "iterations": config.iterations,
        "border": config.border,
    }
    refined = guidance_crf(cropped, guide, **options) if config.guidance else cropped
    out = bilinear_upsample(refined, factor=g)

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        out_gradient, gradients = np.zeros_like(out), {}
        out_gradient[:height, :width] = gradient
        refined_gradient = bilinear_upsample_adjoint(out_gradient, factor=g)
        if config.guidance:
            crf = guidance_crf_gradients(refined_gradient, cropped, guide, **options)
            gradients = {"crf.compatibility": crf.compatibility, "crf.weight": np.array(crf.weight)}
            refined_gradient = crf.scores
        up_gradient = np.zeros_like(up)
        up_gradient[: cropped.shape[0], : cropped.shape[1]] = refined_gradient
        scores_gradient, up_gradients = up_pullback(up_gradient)
        return scores_gradient, gradients | up_gradients

    return out[:height, :width], pullback


def head(features: Array, image: Array, parameters: Parameters, config: HeadConfig) -> tuple[Array, Pullback]:
    """Return the scores (H, W, C) of an image and the pullback to the features and every parameter.

    ``features``: (ceil(H / s), ceil(W / s), D); ``image``: (H, W, 3) in 0..255.

    >>> parameters = {"centre.weight": np.zeros((5, 12)), "centre.bias": np.arange(12.0) % 3}
    >>> config = HeadConfig(rings=(), label_context="none")
    >>> scores, pullback = head(np.ones((1, 1, 5)), np.zeros((9, 13, 3)), parameters, config)
    >>> scores.shape, scores[0, 0].argmax(), sorted(pullback(np.ones_like(scores))[1])
    ((9, 13, 3), np.int64(2), ['centre.bias', 'centre.weight', 'crf.compatibility', 'crf.weight'])
    """
    image = as_map("image", image)
    expected = tuple(-(-side // config.stride) for side in image.shape[:2])
    features = as_map("features", features)
    require(features.shape[:2] == expected, "features", f"(h, w) = {expected}", features.shape[:2])
    value, pullbacks = features, []
    for step in (feature_context, context_crf):
        value, step_pullback = step(value, parameters, config)
        pullbacks.append(step_pullback)
    value, step_pullback = upsampling_and_guidance(value, image, parameters, config)
    pullbacks.append(step_pullback)

    def pullback(gradient: Array) -> tuple[Array, Gradients]:
        gradients: Gradients = {}
        for step_pullback in reversed(pullbacks):
            gradient, step_gradients = step_pullback(gradient)
            gradients |= step_gradients
        return gradient, gradients

    return value, pullback
