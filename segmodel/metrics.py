"""Segmentation figures from one confusion matrix over a whole set."""

from dataclasses import dataclass

import numpy as np

from segmodel.losses import IGNORE


@dataclass(frozen=True)
class Scores:
    """Figures in 0..1; NaN where a class is absent.

    ``iou``: of each class, TP / (TP + FP + FN). ``miou``: their mean over the classes present in truth or prediction.
    ``pixel_accuracy``; ``mean_accuracy``: mean recall over the classes present in the truth.
    """

    iou: tuple[float, ...]
    miou: float
    pixel_accuracy: float
    mean_accuracy: float


class ConfusionMatrix:
    """Counts of (true class, predicted class); pixels labelled 255 count nowhere."""

    def __init__(self, num_classes: int):
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Adds the pixels of arrays of one shape; predictions and labels are class numbers."""
        if prediction.shape != label.shape:
            raise ValueError(f"prediction: expected the label's shape {label.shape}, got {prediction.shape}")
        valid = label != IGNORE
        classes = len(self.counts)
        pairs = label[valid].astype(np.int64) * classes + prediction[valid]
        self.counts += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def scores(self) -> Scores:
        hits = np.diag(self.counts).astype(np.float64)
        truth, predicted = self.counts.sum(1), self.counts.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = hits / (truth + predicted - hits)
            recall = hits / truth
            pixel_accuracy = hits.sum() / np.float64(truth.sum())
        return Scores(tuple(iou.tolist()), _mean(iou), float(pixel_accuracy), _mean(recall))


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def table(columns: dict[str, Scores], classes: tuple[str, ...]) -> str:
    """Text table of one or more results: a row a class, then the means, in percent."""
    width = max(len(name) for name in (*classes, "pixel accuracy"))
    rows: list[tuple[str, list[float]]] = [
        (name, [scores.iou[index] for scores in columns.values()]) for index, name in enumerate(classes)
    ]
    means = [
        ("mIoU", [scores.miou for scores in columns.values()]),
        ("pixel accuracy", [scores.pixel_accuracy for scores in columns.values()]),
        ("mean accuracy", [scores.mean_accuracy for scores in columns.values()]),
    ]
    head = f"{'IoU, %':<{width}}" + "".join(f"{title:>14}" for title in columns)
    lines = [head, "-" * len(head)]
    for block in (rows, means):
        for name, values in block:
            cells = "".join(f"{'-':>14}" if np.isnan(value) else f"{100 * value:>14.2f}" for value in values)
            lines.append(f"{name:<{width}}{cells}")
        if block is rows:
            lines.append("-" * len(head))
    return "\n".join(lines)
