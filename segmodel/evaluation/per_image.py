"""The figures of single images, written to a file and compared with those of another evaluation."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import UserError
from segmodel.common.files import json_text, write_output
from segmodel.evaluation.evaluate import Evaluation
from segmodel.evaluation.metrics import mean_iou, pixel_accuracy


def per_image(results: Mapping[str, Evaluation]) -> Iterator[dict[str, Any]]:
    """A row for each image and result; mIoU there is over the classes present in that image."""
    for title, result in results.items():
        for index, (name, counts) in enumerate(zip(result.names, result.counts, strict=True)):
            row = {"image": name, "result": title, "miou": float(mean_iou(counts)),
                   "pixel_accuracy": float(pixel_accuracy(counts))}  # fmt: skip
            if len(result.boundary):
                row["boundary_iou"] = float(mean_iou(result.boundary[index]))
            yield {**row, **dict(zip(("correct", "true", "predicted"), counts.tolist(), strict=True))}


def write_per_image(path: str, results: Mapping[str, Evaluation]) -> None:
    """JSON lines with the counts, or CSV of the figures alone where the name ends so."""
    if path.lower().endswith(".csv"):
        rows = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in per_image(results)]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return write_output("--per-image", Path(path), text.getvalue())
    return write_output("--per-image", Path(path), "".join(json_text(row) + "\n" for row in per_image(results)))


def read_per_image(path: str, num_classes: int) -> dict[str, dict[str, np.ndarray]]:
    """The counts ``(3, C)`` by result and image in a file of ``write_per_image`` (JSON lines).

    Raises:
        UserError: not such a file, or of other classes.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    number = 0
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            number += 1
            row = json.loads(line)
            counts = np.array([row["correct"], row["true"], row["predicted"]])
            if counts.shape != (3, num_classes) or counts.dtype != np.int64:
                raise ValueError(f"expected counts of {num_classes} classes")
            of_result = found.setdefault(str(row["result"]), {})
            if row["image"] in of_result:
                raise ValueError(f"{row['image']!r} a second time")
            of_result[row["image"]] = counts
    except OSError as error:
        raise UserError(f"--compare: {path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--compare: {path}, line {number}: expected a line of --per-image FILE.jsonl ({error})"
        ) from error
    return found


def aligned(title: str, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The counts ``(N, 3, C)`` of these images in order; an error if the file is of others, or a name comes twice."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"--compare: expected images of different names, got {twice!r} twice")
    differing = sorted(set(counts) ^ set(names))
    if differing:
        raise UserError(f"--compare: {title}: expected the same images; {differing[0]!r} is not in both")
    return np.stack([counts[name] for name in names])
