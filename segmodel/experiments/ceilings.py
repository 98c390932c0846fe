"""Upper ends of coarse codes: the best mIoU on given labels of C x n x n scores a cell at 1/16 (Sec. 3.1, Eq. 6).

A label cell has 16, 8, 4 pixels a side for n = 1, 2, 4. Nothing is trained: the codes are made from the labels.

* blocks: every cell paints its square with one label, chosen for the best mIoU over the whole set; a local optimum,
  which no other label of a single cell improves.
* bilinear: scores are enlarged bilinearly, and each pixel takes the highest. Their cross-entropy, which is convex, is
  minimised from the cells' label histograms on. A lower bound of the best mIoU.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from segmodel.common.labels import IGNORE
from segmodel.data import SegmentationData
from segmodel.evaluation.metrics import class_counts, mean_iou

CELLS = (16, 8, 4)
STEPS = 40


def cell_counts(label: np.ndarray, num_classes: int, *, cell: int) -> np.ndarray:
    """Pixels of each class in each cell of a label map ``(H, W)``: ``(ceil(H/cell), ceil(W/cell), C)`` int64."""
    height, width = (-(-side // cell) for side in label.shape)
    rows, columns = np.indices(label.shape) // cell
    valid = label != IGNORE
    flat = ((rows * width + columns) * num_classes)[valid] + label[valid]
    return np.bincount(flat, minlength=height * width * num_classes).reshape(height, width, num_classes)


def block_counts(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts ``(3, C)``, as in ``metrics``, of cells ``(cells, C)`` that are painted with ``labels``."""
    hits = np.bincount(labels, counts[np.arange(len(counts)), labels], counts.shape[1])
    return np.stack([hits, counts.sum(0), np.bincount(labels, counts.sum(1), counts.shape[1])])


def exchange_gains(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The exact gain in mIoU times the number of classes if one cell takes another label: ``(cells, C)``.

    A cell of N pixels, n of them of a class, adds n to that class's intersection and N - n to its union.
    """
    hits, truth, predicted = block_counts(counts, labels).astype(np.float64)
    union = truth + predicted - hits
    iou = hits / np.maximum(union, 1)
    misses = counts.sum(1, keepdims=True) - counts
    cells = np.arange(len(counts))
    left = (hits[labels] - counts[cells, labels]) / np.maximum(union[labels] - misses[cells, labels], 1)
    gains = (hits + counts) / np.maximum(union + misses, 1) - iou + (left - iou[labels])[:, None]
    gains[:, truth == 0] = -np.inf
    gains[cells, labels] = 0
    return gains


def best_blocks(counts: np.ndarray) -> np.ndarray:
    """Labels ``(cells,)`` int64 of cells with ``counts`` ``(cells, C)``; no single change of one raises their mIoU.

    From the majority vote on, the most promising changes are made together, half as many each time that the mIoU does
    not rise, down to a single one.
    """
    labels = counts.argmax(1)
    highest = mean_iou(block_counts(counts, labels))
    together = len(labels)
    while together:
        gains = exchange_gains(counts, labels)
        order = np.argsort(-gains.max(1), kind="stable")[:together]
        order = order[gains[order].max(1) > 0]
        changed = labels.copy()
        changed[order] = gains[order].argmax(1)
        score = mean_iou(block_counts(counts, changed))
        if score > highest:
            labels, highest = changed, score
        else:
            together = min(together, len(order)) // 2
    return labels


def fitted_labels(label: np.ndarray, num_classes: int, *, cell: int, steps: int = STEPS) -> np.ndarray:
    """The label map ``(H, W)`` of scores a cell that are fitted to ``label`` through bilinear enlargement."""
    present = np.unique(label[label != IGNORE])
    if not len(present):
        return np.zeros(label.shape, np.uint8)
    counts = cell_counts(label, num_classes, cell=cell)[..., present]
    histogram = (counts + 0.1) / (counts.sum(-1, keepdims=True) + 0.1 * len(present))
    scores = torch.from_numpy(np.log(histogram)).float().permute(2, 0, 1)[None].requires_grad_()
    index = np.full(256, IGNORE)
    index[present] = np.arange(len(present))
    target = torch.from_numpy(index[label])[None]
    optimizer = torch.optim.Adam([scores], lr=0.5)

    def enlarged() -> torch.Tensor:
        whole = functional.interpolate(scores, scale_factor=cell, mode="bilinear", align_corners=False)
        return whole[:, :, : label.shape[0], : label.shape[1]]

    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(enlarged(), target, ignore_index=IGNORE).backward()
            optimizer.step()
    return present[enlarged().detach().argmax(1)[0].numpy()].astype(np.uint8)


def ceilings(data: SegmentationData, *, cells: Sequence[int] = CELLS) -> dict[int, dict[str, float]]:
    """mIoU in 0..1 over all labels of a set: ``{cell: {"blocks": ..., "bilinear": ...}}``."""
    classes = len(data.classes)
    pure = {cell: np.zeros(classes, np.int64) for cell in cells}  # pixels in cells of one class, which never change it
    mixed: dict[int, list[np.ndarray]] = {cell: [] for cell in cells}
    fitted = {cell: np.zeros((3, classes), np.int64) for cell in cells}
    for index in tqdm(range(len(data)), desc="ceilings", unit="image", leave=False, disable=None):
        label = data[index].label
        for cell in cells:
            counts = cell_counts(label, classes, cell=cell).reshape(-1, classes)
            kinds = (counts > 0).sum(1)
            pure[cell] += counts[kinds == 1].sum(0)
            mixed[cell].append(counts[kinds > 1].astype(np.int32))
            fitted[cell] += class_counts(fitted_labels(label, classes, cell=cell), label, classes)
    result = {}
    for cell in cells:
        whole = np.concatenate([np.diag(pure[cell]), *mixed.pop(cell)])
        blocks = float(mean_iou(block_counts(whole, best_blocks(whole))))
        result[cell] = {"blocks": blocks, "bilinear": float(mean_iou(fitted[cell]))}
    return result
