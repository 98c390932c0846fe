"""The guided filter against the dense float64 matrix of Eq. 12."""

import numpy as np
import pytest
import torch

from segmodel.kernels import guided_filter


def dense_matrix(guide: np.ndarray, radius: int, eps: float, border: str) -> np.ndarray:
    """W by its definition, window after window; guide H W C."""
    height, width, channels = guide.shape
    index = np.arange(height * width).reshape(height, width)
    colours = guide.reshape(-1, channels)
    total = np.zeros((height * width, height * width))
    counts = np.zeros(height * width)
    area = (2 * radius + 1) ** 2
    for row in range(height):
        for column in range(width):
            rows = slice(max(row - radius, 0), row + radius + 1)
            window = index[rows, max(column - radius, 0) : column + radius + 1].ravel()
            centred = colours[window] - colours[window].mean(axis=0)
            covariance = centred.T @ centred / len(window) + eps * np.eye(channels)
            kernel = 1 + centred @ np.linalg.solve(covariance, centred.T)
            total[np.ix_(window, window)] += kernel / (len(window) if border == "clipped" else area)
            counts[index[row, column]] = len(window) if border == "clipped" else area
    return total / counts[:, None]


@pytest.mark.parametrize("border", ["clipped", "constant"])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_dense_matrix(border: str, channels: int) -> None:
    rng = np.random.default_rng(0)
    guide = rng.uniform(0, 255, (6, 9, channels))
    scores = rng.normal(size=(6, 9, 4))
    expected = (dense_matrix(guide, 2, 1.0, border) @ scores.reshape(-1, 4)).reshape(scores.shape)
    to_tensor = lambda x: torch.from_numpy(x).permute(2, 0, 1)[None]  # noqa: E731
    actual = guided_filter(to_tensor(scores), to_tensor(guide), radius=2, border=border)
    np.testing.assert_allclose(actual[0].permute(1, 2, 0).numpy(), expected, rtol=1e-11, atol=1e-11)
