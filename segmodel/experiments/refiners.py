"""Other methods that refine scores by a picture, for comparison: of OpenCV and pydensecrf, and two small forms of ours.

Each takes logits ``(C, h, w)`` float32, a picture ``(H, W, 3)`` uint8 and its settings, and returns labels ``(H, W)``.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from segmodel.common.environment import peer
from segmodel.experiments.dense_crf import dense_crf_scores

Labels = np.ndarray


def enlarged(logits: np.ndarray, picture: np.ndarray) -> torch.Tensor:
    """Logits ``(1, C, H, W)`` at the picture's size, by bilinear interpolation."""
    size = picture.shape[:2]
    return functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)


def bilinear(logits: np.ndarray, picture: np.ndarray) -> Labels:
    return enlarged(logits, picture)[0].argmax(0).numpy().astype(np.uint8)


def _probabilities(logits: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """``(H, W, C)``, as OpenCV takes them."""
    return np.ascontiguousarray(enlarged(logits, picture)[0].softmax(0).permute(1, 2, 0).numpy())


def opencv_guided_filter(logits: np.ndarray, picture: np.ndarray, *, radius: int, eps: float) -> Labels:
    cv2: Any = peer("cv2")
    wide = picture.astype(np.float32)
    return cv2.ximgproc.guidedFilter(wide, _probabilities(logits, picture), radius, eps).argmax(2).astype(np.uint8)


def opencv_fast_global_smoother(logits: np.ndarray, picture: np.ndarray, *, lambda_: float, sigma: float) -> Labels:
    cv2: Any = peer("cv2")
    smoother = cv2.ximgproc.createFastGlobalSmootherFilter(picture, lambda_, sigma)
    maps = _probabilities(logits, picture)
    smooth = [smoother.filter(np.ascontiguousarray(maps[..., index])) for index in range(maps.shape[2])]
    return np.argmax(smooth, axis=0).astype(np.uint8)


def dense_crf(
    logits: np.ndarray, picture: np.ndarray, *, sxy: float, srgb: float, compat: float, iterations: int
) -> Labels:
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
    scores = dense_crf_scores(enlarged(logits, picture), image, sxy=sxy, srgb=srgb, compat=compat,
                              iterations=iterations)  # fmt: skip
    return scores[0].argmax(0).numpy().astype(np.uint8)


def joint_bilateral_upsampling(
    logits: np.ndarray, picture: np.ndarray, *, sigma: float, colour: float, radius: int
) -> Labels:
    """Kopf et al., SIGGRAPH 2007: each pixel is a mean of the low-resolution probabilities around it, weighted by

    distance (deviation ``sigma``, in cells) and by how the cell's mean colour differs from the pixel's (``colour``).
    """
    (height, width), (rows, columns) = picture.shape[:2], logits.shape[1:]
    image = torch.from_numpy(picture).permute(2, 0, 1).float()
    small = functional.adaptive_avg_pool2d(image[None], (rows, columns))[0]
    beliefs = torch.from_numpy(logits).softmax(0)
    y = (torch.arange(height) + 0.5) * (rows / height) - 0.5
    x = (torch.arange(width) + 0.5) * (columns / width) - 0.5
    total = torch.zeros(len(logits), height, width)
    for down in range(-radius, radius + 1):
        row = y.round() + down
        there = row.clamp(0, rows - 1).long()
        for across in range(-radius, radius + 1):
            column = x.round() + across
            cells = (slice(None), there[:, None], column.clamp(0, columns - 1).long())
            distance = ((row - y)[:, None] ** 2 + (column - x) ** 2) / (2 * sigma**2)
            difference = ((small[cells] - image) ** 2).sum(0) / (2 * colour**2)
            total += beliefs[cells] * torch.exp(-distance - difference)
    return total.argmax(0).numpy().astype(np.uint8)


def bilateral_solver(
    logits: np.ndarray, picture: np.ndarray, *, sigma: float, luma: float, chroma: float, smoothness: float
) -> Labels:
    """Barron and Poole, ECCV 2016, on probabilities whose confidence is how far the best is from chance.

    A bilateral grid of ``sigma`` pixels, ``luma`` and ``chroma`` grey values; 25 steps of preconditioned conjugate
    gradients.
    """
    height, width = picture.shape[:2]
    red, green, blue = picture.astype(np.float64).reshape(-1, 3).T
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    colours = [grey / luma, 0.564 * (blue - grey) / chroma, 0.713 * (red - grey) / chroma]
    row, column = np.indices((height, width)).reshape(2, -1)
    places = np.stack([np.floor(line).astype(np.int64) for line in (row / sigma, column / sigma, *colours)])
    places -= places.min(1, keepdims=True) - 1
    strides = np.cumprod([1, *(places.max(1) + 2)[:-1]])
    codes, vertex = np.unique(strides @ places, return_inverse=True)
    neighbours = []
    for stride in strides:
        for step in (-stride, stride):
            found = np.searchsorted(codes, codes + step).clip(max=len(codes) - 1)
            neighbours.append((found, codes[found] == codes + step))

    def splat(values: np.ndarray) -> np.ndarray:
        return np.bincount(vertex, values, len(codes))

    def blur(values: np.ndarray) -> np.ndarray:
        total = 10 * values
        for found, there in neighbours:
            total = total + values[found] * (there if values.ndim == 1 else there[:, None])
        return total

    mass = splat(np.ones(height * width))
    scale = np.ones(len(codes))
    for _ in range(20):  # makes the blurred grid bistochastic
        scale = np.sqrt(scale * mass / blur(scale))
    beliefs = _probabilities(logits, picture).reshape(height * width, -1).astype(np.float64)
    confidence = (beliefs.max(1) - 1 / beliefs.shape[1]).clip(min=1e-3)
    data = splat(confidence)
    target = np.stack([splat(confidence * line) for line in beliefs.T], 1)

    def matrix(x: np.ndarray) -> np.ndarray:
        return smoothness * ((scale * blur(scale))[:, None] * x - scale[:, None] * blur(scale[:, None] * x)) + (
            data[:, None] * x
        )

    jacobi = 1 / (smoothness * (scale * blur(scale) - 10 * scale**2) + data)[:, None].clip(min=1e-9)
    x = target / data[:, None]
    residual = target - matrix(x)
    direction = step_from = jacobi * residual
    for _ in range(25):
        product = matrix(direction)
        along = (residual * step_from).sum(0)
        rate = along / (direction * product).sum(0).clip(min=1e-30)
        x, residual = x + rate * direction, residual - rate * product
        step_from = jacobi * residual
        direction = step_from + (residual * step_from).sum(0) / along.clip(min=1e-30) * direction
    return x[vertex].argmax(1).reshape(height, width).astype(np.uint8)
