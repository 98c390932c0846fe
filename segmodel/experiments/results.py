"""What a trained run predicts on the validation images, kept in figures/RUN.npz: later tables need no model.

A *row* is a way from the run's scores to labels: the model as it is, and beside it, from the same backbone pass, other
guidance: none, an untrained guidance CRF (Sec. 7.2: added at inference), the bilateral dense CRF (Fig. 6).
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segmodel.common.device import autocast, place, to_batch
from segmodel.common.files import replacing
from segmodel.data import Sample, SegmentationData
from segmodel.evaluation.boundary import boundary_counts, trimap_counts
from segmodel.evaluation.evaluate import check_classes
from segmodel.evaluation.metrics import ConfusionMatrix
from segmodel.experiments.dense_crf import dense_crf_scores, installed
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.head import SegmentationHead
from segmodel.model.network import Network
from segmodel.model.store import load_network

WIDTHS = (2, 5, 10, 20)
"""Trimaps: pixels at most so far from a true boundary."""
UNTRAINED = {"CRF untrained, weight 2, radius 3": (2.0, 3), "CRF untrained, weight 8, radius 6": (8.0, 6)}
DENSE = "bilateral dense CRF"
AS_IT_IS = "model"
FORMAT = 1
PARTS = ("confusion", "boundary", "trimap", "seconds")
Row = Callable[[Tensor, Tensor], Tensor]
"""Scores of the context CRF ``(1, C, h, w)`` and image ``(1, 3, H, W)`` -> scores ``(1, C, H, W)``."""


@dataclass(frozen=True)
class Figures:
    """One row of one run over N images.

    ``confusion``: ``(N, C, C)``; ``boundary``: ``(N, 3, C)``; ``trimap``: ``(N, len(WIDTHS), 3, C)``, all int64 counts
    as in ``metrics``; ``seconds``: ``(N,)`` from scores to labels, backbone and context not counted; ``labels``: label
    maps of the images shown.
    """

    confusion: np.ndarray
    boundary: np.ndarray
    trimap: np.ndarray
    seconds: np.ndarray
    labels: list[np.ndarray]

    @property
    def counts(self) -> np.ndarray:
        """``(N, 3, C)``: correct, true, predicted pixels of each class."""
        hits = np.diagonal(self.confusion, axis1=1, axis2=2)
        return np.stack([hits, self.confusion.sum(2), self.confusion.sum(1)], axis=1)


def rows_of(model: Network, *, dense: bool) -> dict[str, Row]:
    """The model as it is, and what else is tried on its scores.

    A model without a guidance CRF but with patches gets untrained ones and the dense CRF; one with a guidance CRF gets
    none.
    """
    head = model.head
    rows: dict[str, Row] = {AS_IT_IS: lambda s, i: head.refine(s, i, head.guided(None))}
    if head.guidance != "off":
        rows["guidance off"] = lambda s, i: head.refine(s, i, None)
        return rows
    if head.patch_size > 1:
        for name, (weight, radius) in UNTRAINED.items():
            rows[name] = _with_crf(head, GuidanceCRF(model.num_classes, weight=weight, radius=radius))
        if dense and installed():
            rows[DENSE] = lambda s, i: dense_crf_scores(head.refine(s, i, None), i)
    return rows


def _with_crf(head: SegmentationHead, crf: GuidanceCRF) -> Row:
    def row(scores: Tensor, image: Tensor) -> Tensor:
        head.crf = crf.to(scores.device)
        return head.refine(scores, image, head.crf)

    return row


@torch.inference_mode()
def predict_rows(
    model: Network, rows: dict[str, Row], sample: Sample, dtype: torch.dtype | None
) -> dict[str, tuple[np.ndarray, float]]:
    """Labels ``(H, W)`` uint8 and seconds of each row, from one backbone pass."""
    device = next(model.parameters()).device
    batch = to_batch(sample.image[None].copy(), device)
    with autocast(device, dtype):
        coarse = model.head.coarse(model.features(batch), sample.image.shape[:2])
    results = {}
    if device.type == "cuda":  # what is timed below would wait for the backbone
        torch.cuda.synchronize(device)
    for name, row in rows.items():
        start = time.perf_counter()
        labels = row(coarse, batch).argmax(1)[0].to(torch.uint8).cpu().numpy()
        results[name] = labels, time.perf_counter() - start
    return results


def evaluate_rows(
    model: Network,
    data: SegmentationData,
    *,
    shown: list[int],
    dtype: torch.dtype | None,
    dense: bool,
    description: str,
) -> dict[str, Figures]:
    """Every row of one model over a whole set; ``shown``: images whose label maps are kept."""
    rows = rows_of(model, dense=dense)
    lists: dict[str, tuple[list, ...]] = {name: ([], [], [], [], []) for name in rows}
    for index in tqdm(range(len(data)), desc=description, unit="image", leave=False, disable=None):
        sample = data[index]
        for name, (labels, seconds) in predict_rows(model, rows, sample, dtype).items():
            confusion, boundary, trimap, times, maps = lists[name]
            matrix = ConfusionMatrix(model.num_classes)
            matrix.update(labels, sample.label)
            confusion.append(matrix.counts)
            boundary.append(boundary_counts(labels, sample.label, model.num_classes))
            trimap.append(np.stack(trimap_counts(labels, sample.label, model.num_classes, widths=WIDTHS)))
            times.append(seconds)
            if index in shown:
                maps.append(labels)
    return {
        name: Figures(np.stack(confusion), np.stack(boundary), np.stack(trimap), np.array(times), maps)
        for name, (confusion, boundary, trimap, times, maps) in lists.items()
    }


def fingerprint(checkpoint: Path, data: SegmentationData, shown: list[int], dtype: torch.dtype | None) -> str:
    """Changes whenever kept figures would: with the checkpoint, the settings, or the data."""
    facts = [FORMAT, WIDTHS, UNTRAINED, len(data), data.facts(), shown, str(dtype)]
    return hashlib.sha256(checkpoint.read_bytes() + json.dumps(facts).encode()).hexdigest()


def run_figures(
    folder: Path, kept: Path, data: SegmentationData, *, shown: list[int], device: torch.device,
    dtype: torch.dtype | None, dense: bool,
) -> dict[str, Figures]:  # fmt: skip
    """Figures of a finished run's last checkpoint: those kept in ``kept`` if they are its, else made anew and kept.

    The last, not the best: the best was chosen on these very images.
    """
    checkpoint = folder / "last.safetensors"
    mark = fingerprint(checkpoint, data, shown, dtype)
    found = read_figures(kept, mark)
    dense = dense and bool(installed())
    model = load_network(checkpoint, Network)
    check_classes(checkpoint, model.classes, data)
    if found is not None and found.keys() >= rows_of(model, dense=dense).keys():
        return found
    place(model, device)
    figures = evaluate_rows(model, data, shown=shown, dtype=dtype, dense=dense, description=folder.name)
    write_figures(kept, mark, figures)
    return figures


def write_figures(path: Path, mark: str, rows: dict[str, Figures]) -> None:
    """Writes an .npz file as a whole or not at all."""
    arrays: dict[str, np.ndarray] = {"mark": np.array(mark), "rows": np.array(list(rows))}
    for number, row in enumerate(rows.values()):
        for name in PARTS:
            arrays[f"{name}_{number}"] = getattr(row, name)
        arrays |= {f"labels_{number}_{place}": labels for place, labels in enumerate(row.labels)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_figures(path: Path, mark: str) -> dict[str, Figures] | None:
    """What ``write_figures`` wrote under this mark, else (also where the file is broken) None."""
    try:
        with np.load(path) as arrays:
            if str(arrays["mark"]) != mark:
                return None
            result = {}
            for number, name in enumerate(arrays["rows"].tolist()):
                confusion, boundary, trimap, seconds = (arrays[f"{part}_{number}"] for part in PARTS)
                count = sum(key.startswith(f"labels_{number}_") for key in arrays.files)
                labels = [arrays[f"labels_{number}_{place}"] for place in range(count)]
                result[name] = Figures(confusion, boundary, trimap, seconds, labels)
            return result
    except Exception:  # a broken archive raises nearly anything; the figures are made anew
        return None
