"""The authors' guidance CRF in NumPy, with the order of its steps and its memory, bugs included.

Written from what their CUDA code does, and in nothing from ours: what the errata say of that code is tested on it.
"""

import numpy as np


def box_mean(x: np.ndarray, radius: int) -> np.ndarray:
    """Sums over windows with zeros around the map, over min(2r+1, H) * min(2r+1, W) everywhere; ``(..., H, W)``."""
    height, width = x.shape[-2:]
    padded = np.zeros((*x.shape[:-2], height + 2 * radius, width + 2 * radius))
    padded[..., radius : radius + height, radius : radius + width] = x
    total = np.zeros_like(x)
    for y in range(2 * radius + 1):
        for x0 in range(2 * radius + 1):
            total = total + padded[..., y : y + height, x0 : x0 + width]
    return total / (min(2 * radius + 1, height) * min(2 * radius + 1, width))


class AuthorsCRF:
    """Forward and backward for one batch: scores ``(N, L, H, W)``, guide ``(N, 3, H, W)``.

    Two bugs can be switched off, to show that they are ones: ``accumulate``, every filtering adds epsilon to the
    covariance that the last one left; ``mix``, softmax and label product read the batch as L rows of memory.
    """

    def __init__(self, guide: np.ndarray, *, radius: int = 3, eps: float = 1.0, weight: float = 2.0,
                 iterations: int = 3, accumulate: bool = True, mix: bool = True) -> None:  # fmt: skip
        self.guide, self.radius, self.eps, self.weight, self.iterations = guide, radius, eps, weight, iterations
        self.accumulate, self.mix = accumulate, mix
        self.beliefs: list[np.ndarray] = []

    def rows(self, x: np.ndarray) -> np.ndarray:
        """The labels as rows: of the memory as it lies, whatever image it belongs to, or rightly of each image."""
        labels = x.shape[1]
        return x.reshape(labels, -1) if self.mix else x.transpose(1, 0, 2, 3).reshape(labels, -1)

    def maps(self, rows: np.ndarray) -> np.ndarray:
        images, _, height, width = (*self.guide.shape[:1], len(rows), *self.guide.shape[2:])
        if self.mix:
            return rows.reshape(images, len(rows), height, width)
        return rows.reshape(len(rows), images, height, width).transpose(1, 0, 2, 3)

    def filter(self, p: np.ndarray) -> np.ndarray:
        """Guided filtering by explicit inverses; adds epsilon to ``self.covariance``, where it stays."""
        if not self.accumulate:
            self.covariance = self._covariance()
        self.covariance[:, [0, 1, 2], [0, 1, 2]] += self.eps
        mean_i, mean_p = box_mean(self.guide, self.radius), box_mean(p, self.radius)
        joint = box_mean(self.guide[:, None] * p[:, :, None], self.radius) - mean_i[:, None] * mean_p[:, :, None]
        inverse = np.linalg.inv(self.covariance.transpose(0, 3, 4, 1, 2))  # [N, H, W, 3, 3]
        a = np.einsum("nlchw,nhwcd->nldhw", joint, inverse)
        b = mean_p - (a * mean_i[:, None]).sum(axis=2)
        return (self.guide[:, None] * box_mean(a, self.radius)).sum(axis=2) + box_mean(b, self.radius)

    def _covariance(self) -> np.ndarray:
        """(N, 3, 3, H, W)"""
        mean = box_mean(self.guide, self.radius)
        return box_mean(self.guide[:, :, None] * self.guide[:, None], self.radius) - mean[:, :, None] * mean[:, None]

    def forward(self, scores: np.ndarray) -> np.ndarray:
        potts, phi = 1 - np.eye(scores.shape[1]), scores
        self.covariance, self.beliefs = self._covariance(), []
        for _ in range(self.iterations):
            rows = np.exp(self.rows(phi) - self.rows(phi).max(axis=0))
            self.beliefs.append(self.maps(rows / rows.sum(axis=0)))
            message = self.maps(potts @ self.rows(self.filter(self.beliefs[-1])))
            phi = scores - self.weight * message
        return phi

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """The gradient of the scores (nothing else gets one), after a forward, whose covariance it goes on with."""
        potts, total = 1 - np.eye(gradient.shape[1]), np.zeros_like(gradient)
        for belief in reversed(self.beliefs):
            total = total + gradient
            message = self.maps(potts.T @ self.rows(-self.weight * gradient))
            q, d_q = self.rows(belief), self.rows(self.filter(message))
            gradient = self.maps(q * (d_q - (q * d_q).sum(axis=0)))
        return total + gradient
