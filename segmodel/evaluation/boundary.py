"""Boundaries of label maps: distances to them, Boundary IoU (Cheng et al., CVPR 2021), trimaps (Fig. 6 in numbers).

A boundary runs between two pixels of different labels. Ignored pixels (255) are a label of their own: published labels
mark objects' outlines so, and what lies on the other side of such a band is near a boundary too.
"""

from collections.abc import Sequence

import numpy as np

from segmodel.common.labels import IGNORE
from segmodel.evaluation.metrics import ConfusionMatrix


def boundary_distance(label: np.ndarray, *, limit: int) -> np.ndarray:
    """Distance in pixels from each pixel ``(H, W)`` to the nearest one of another label; inf beyond ``limit``.

    The two pixels on either side of a boundary have distance 1. Euclidean, exact, in ``2 limit + 1`` passes.
    """
    far = limit + 1
    dtype = np.int16 if 2 * far * far < 2**15 else np.int64
    reach = _distance_in_row(label, far).astype(dtype) ** 2
    nearest = reach.copy()
    for step in range(1, min(far, len(label))):
        same = label[step:] == label[:-step]
        for here, there in ((np.s_[step:], np.s_[:-step]), (np.s_[:-step], np.s_[step:])):
            across = reach[there] * same  # 0 where that row has another label here already
            across += dtype(step * step)
            np.minimum(nearest[here], across, out=nearest[here])
    distance = np.sqrt(nearest, dtype=np.float32)
    distance[distance > limit] = np.inf
    return distance


def near_outline(label: np.ndarray, *, limit: int) -> np.ndarray:
    """Which pixels ``(H, W)`` have another label, or the outside, in the square of radius ``limit`` around them."""
    padded = np.pad(label.astype(np.int16), 1, constant_values=-1)
    whole_in_row = _distance_in_row(padded, limit + 1) > limit
    columns = np.where(whole_in_row, padded, -1).T  # runs down a column of pixels whose part of the row is whole
    return ~(whole_in_row & (_distance_in_row(columns, limit + 1) > limit).T)[1:-1, 1:-1]


def _distance_in_row(values: np.ndarray, far: int) -> np.ndarray:
    """Distance to the nearest other value to the left or right in the same row, at most ``far``."""
    changes = values[:, 1:] != values[:, :-1]
    places = np.arange(values.shape[1], dtype=np.int32)

    def to_the_left(changes: np.ndarray) -> np.ndarray:
        starts = np.full(values.shape, -far, np.int32)
        starts[:, 1:] = np.where(changes, places[1:], np.int32(-far))
        return places - np.maximum.accumulate(starts, axis=1) + 1

    return np.minimum(np.minimum(to_the_left(changes), to_the_left(changes[:, ::-1])[:, ::-1]), far)


def boundary_counts(prediction: np.ndarray, label: np.ndarray, num_classes: int, *, ratio: float = 0.02) -> np.ndarray:
    """Counts ``(3, C)`` whose IoU is the Boundary IoU: of each mask only the pixels near its own outline remain.

    Near is within ``ratio`` of the picture's diagonal (rounded, at least one pixel), in chessboard distance, and the
    picture's border is part of the outline, as in the authors' code. Ignored pixels are cut out of both masks, so
    that a perfect prediction scores 1. One image's counts; they add up over images as those of ``metrics`` do.
    """
    limit = max(1, round(ratio * float(np.hypot(*label.shape))))
    cut = np.where(label == IGNORE, IGNORE, prediction).astype(np.uint8)
    near_truth, near_prediction = (near_outline(mask, limit=limit) & (label != IGNORE) for mask in (label, cut))
    kept = (label[near_truth & near_prediction & (label == cut)], label[near_truth], cut[near_prediction])
    return np.stack([np.bincount(pixels, minlength=num_classes) for pixels in kept])


def trimap_counts(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, *, widths: Sequence[int]
) -> list[np.ndarray]:
    """Counts ``(3, C)`` of the pixels within each width of a true boundary (Euclidean; the border is none)."""
    distance = boundary_distance(label, limit=max(widths))
    counts = []
    for width in widths:
        near = distance <= width
        matrix = ConfusionMatrix(num_classes)
        matrix.update(prediction[near], label[near])
        counts.append(matrix.class_counts())
    return counts
