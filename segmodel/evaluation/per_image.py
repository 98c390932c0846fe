"""Figures of single images: written to a file, and read from it to be compared with another evaluation."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import UserError, printable
from segmodel.common.files import json_text, write_output
from segmodel.common.reading import parse_json, read_text
from segmodel.evaluation.evaluate import Evaluation
from segmodel.evaluation.metrics import mean_iou, pixel_accuracy

COUNTS = ("correct", "true", "predicted")


def per_image(results: Mapping[str, Evaluation]) -> Iterator[dict[str, Any]]:
    """A row of figures and counts for each result and image; its mIoU is over the classes present in that image."""
    for title, result in results.items():
        for index, (name, counts) in enumerate(zip(result.names, result.counts, strict=True)):
            row = {"image": name, "result": title, "miou": float(mean_iou(counts)),
                   "pixel_accuracy": float(pixel_accuracy(counts))}  # fmt: skip
            if len(result.boundary):
                row["boundary_iou"] = float(mean_iou(result.boundary[index]))
            yield {**row, **dict(zip(COUNTS, counts.tolist(), strict=True))}


def write_per_image(path: str, results: Mapping[str, Evaluation]) -> None:
    """Writes figures and counts as JSON lines, or the figures alone as CSV if the file's name ends in .csv."""
    rows = list(per_image(results))
    text = io.StringIO()
    if path.lower().endswith(".csv"):
        writer = csv.DictWriter(text, [key for key in rows[0] if key not in COUNTS], extrasaction="ignore",
                                lineterminator="\n")  # fmt: skip
        writer.writeheader()
        writer.writerows({**row, "image": printable(row["image"])} for row in rows)
    else:
        text.writelines(json_text(row) + "\n" for row in rows)
    write_output("--per-image", Path(path), text.getvalue())


def read_per_image(path: str, num_classes: int) -> dict[str, dict[str, np.ndarray]]:
    """The counts ``(3, C)`` by result and image in a file of JSON lines of ``write_per_image``.

    Raises:
        UserError: another file, or of another number of classes.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    number = 0
    try:
        for line in read_text(path, most="SEGMODEL_MAX_JSON_BYTES").splitlines():
            number += 1
            row = parse_json(line)
            counts = np.array([row[name] for name in COUNTS])
            if counts.shape != (3, num_classes) or counts.dtype != np.int64:
                raise ValueError(f"expected counts of {num_classes} classes")
            if found.setdefault(str(row["result"]), {}).setdefault(row["image"], counts) is not counts:
                raise ValueError(f"{row['image']!r} a second time")
    except OSError as error:
        raise UserError(f"--compare: {path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--compare: {path}, line {number}: expected a line of --per-image FILE.jsonl ({error})"
        ) from error
    return found


def aligned(title: str, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The counts ``(N, 3, C)`` of the named images in order; UserError if the file has others or a name comes twice."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"--compare: expected images of different names, got {twice!r} twice")
    differing = sorted(set(counts) ^ set(names))
    if differing:
        raise UserError(f"--compare: {title}: expected the same images; {differing[0]!r} is not in both")
    return np.stack([counts[name] for name in names])
