"""What a trained run predicts on the validation images, kept in figures/RUN.npz: later tables need no model.

Beside the model as it is, other guidance is tried on the same scores: none, an untrained guidance CRF (Sec. 7.2: added
at inference), the bilateral dense CRF (Fig. 6).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from segmodel.common.device import place
from segmodel.common.files import replacing
from segmodel.common.reading import open_file, read_bytes
from segmodel.data import SegmentationData
from segmodel.evaluation.boundary import SHARE
from segmodel.evaluation.evaluate import Evaluation, check_classes, evaluate_images
from segmodel.experiments.dense_crf import dense_crf_scores, installed
from segmodel.inference.views import AtFullSize, Guidance, label_maps
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.network import Network
from segmodel.model.store import load_network
from segmodel.model.untrained_crf import crf_from_scores

WIDTHS = (2, 5, 10, 20)
"""Trimaps: pixels at most so far from a true boundary."""
FROM_SCORES = "CRF untrained, settings from the scores"
UNTRAINED = {"CRF untrained, weight 2, radius 3": (2.0, 3), "CRF untrained, weight 8, radius 6": (8.0, 6)}
DENSE = "bilateral dense CRF"
AS_IT_IS = "model"
FORMAT = 3
ARRAYS = ("names", "counts", "boundary", "trimap", "seconds", "widths")
"""The fields of an ``Evaluation`` that are kept as one array each."""


def guidance_of(model: Network, *, dense: bool) -> dict[str, Guidance]:
    """The guidance with which a model is evaluated, by the name of its row in the tables.

    A model without a guidance CRF but with patches also gets untrained ones and, if ``dense``, the dense CRF; a model
    with a guidance CRF is also evaluated without it, and with an untrained one instead.
    """
    if model.head.guidance != "off":
        return {AS_IT_IS: None, "guidance off": False, FROM_SCORES: crf_from_scores}
    rows: dict[str, Guidance] = {AS_IT_IS: None}
    if model.head.patch_size > 1:
        for name, (weight, radius) in UNTRAINED.items():
            crf = GuidanceCRF(model.num_classes, weight=weight, radius=radius)
            rows[name] = crf.to(next(model.parameters()).device)
        rows[FROM_SCORES] = crf_from_scores
        if dense and installed():
            rows[DENSE] = AtFullSize(dense_crf_scores)
    return rows


def fingerprint(checkpoint: Path, data: SegmentationData, shown: list[int], dtype: torch.dtype | None) -> str:
    """A hash that changes whenever the evaluations would: with the checkpoint, the settings, or the data."""
    facts = [FORMAT, WIDTHS, UNTRAINED, len(data), data.facts(), shown, str(dtype)]
    return hashlib.sha256(
        read_bytes(checkpoint, most="SEGMODEL_MAX_ARRAY_BYTES") + json.dumps(facts).encode()
    ).hexdigest()


def run_figures(
    folder: Path, kept: Path, data: SegmentationData, *, shown: list[int], device: torch.device,
    dtype: torch.dtype | None, dense: bool, others: bool = True,
) -> dict[str, Evaluation]:  # fmt: skip
    """Evaluations of a finished run's last checkpoint by row; read from ``kept`` if they are its, else kept there.

    The last, not the best: the best was chosen on these very images. others: with other guidance too.
    """
    checkpoint = folder / "last.safetensors"
    mark = fingerprint(checkpoint, data, shown, dtype)
    found = read_figures(kept, mark)
    model = place(load_network(checkpoint, Network), device)
    check_classes(checkpoint, model.classes, data)
    guidance = guidance_of(model, dense=dense) if others else {AS_IT_IS: None}
    if found is not None and found.keys() >= guidance.keys():
        return found
    figures = evaluate_images(
        [model], data, guidance=guidance, dtype=dtype, boundary=SHARE, widths=WIDTHS, shown=shown,
        description=folder.name, leave=False,
    )  # fmt: skip
    write_figures(kept, mark, figures)
    return figures


def predicted_labels(
    folder: Path, data: SegmentationData, indices: Sequence[int], *, device: torch.device, dtype: torch.dtype | None
) -> dict[int, np.ndarray]:
    """Labels ``(H, W)`` uint8 that a finished run's last model predicts for some images, by their number."""
    model = place(load_network(folder / "last.safetensors", Network), device)
    return {
        index: label_maps(model, data[index].image, guidance={AS_IT_IS: None}, dtype=dtype)[AS_IT_IS]
        for index in indices
    }


def write_figures(path: Path, mark: str, rows: dict[str, Evaluation]) -> None:
    """Writes an .npz file as a whole or not at all."""
    arrays: dict[str, np.ndarray] = {"mark": np.array(mark), "rows": np.array(list(rows))}
    for number, row in enumerate(rows.values()):
        arrays |= {f"{name}_{number}": np.array(getattr(row, name)) for name in ARRAYS}
        arrays |= {f"labels_{number}_{place}": labels for place, labels in enumerate(row.labels)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_figures(path: Path, mark: str) -> dict[str, Evaluation] | None:
    """What ``write_figures`` wrote under this mark; None if the mark is another or the file cannot be read."""
    try:
        with open_file(path, most="SEGMODEL_MAX_ARRAY_BYTES") as file, np.load(file) as arrays:
            if str(arrays["mark"]) != mark:
                return None
            result = {}
            for number, row in enumerate(arrays["rows"].tolist()):
                parts = {name: arrays[f"{name}_{number}"] for name in ARRAYS}
                parts |= {name: tuple(parts[name].tolist()) for name in ("names", "widths")}
                count = sum(key.startswith(f"labels_{number}_") for key in arrays.files)
                labels = tuple(arrays[f"labels_{number}_{place}"] for place in range(count))
                result[row] = Evaluation(labels=labels, **parts)
            return result
    except Exception:  # a broken archive raises nearly anything; the run is evaluated again
        return None
