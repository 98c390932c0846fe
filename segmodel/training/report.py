"""The report of a run: curves, tables, pictures, configuration and versions on one page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmodel.common.errors import UserError
from segmodel.common.files import write_output
from segmodel.common.html import configuration, curves, heading, page, paragraph, picture
from segmodel.common.pictures import reduced
from segmodel.common.tables import Table
from segmodel.training.journal import COLUMNS, loss_curve, read_metrics, score_curve

Lines = Mapping[str, Sequence[Mapping[str, Any]]]
"""Of metrics.jsonl, by kind."""


def run_report(folder: Path) -> str:
    """The page of a run folder, finished or not: curves, table, pictures, configuration, versions.

    Raises:
        UserError: not a run folder.
    """
    try:
        configured = (folder / "config.toml").read_text(encoding="utf-8")
        kinds = read_metrics(folder)
        blocks = [paragraph(_summary(kinds)), heading("Training"), *_training_curves(kinds)]
        if kinds["final"]:
            blocks += [heading("Validation set"), *_result_tables(kinds["final"][-1])]
        start = {key: value for line in kinds["start"][-1:] for key, value in line.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # whatever a broken line leads to
        words = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder}: expected a run folder with config.toml and metrics.jsonl ({words})") from error
    blocks += _pictures(folder)
    blocks += [heading("Configuration"), configuration(configured), heading("Versions")]
    blocks.append(configuration({key: value for key, value in start.items() if key not in ("kind", "step")}))
    return page(f"segmodel: {folder.resolve().name}", blocks)


def _summary(kinds: Lines) -> str:
    steps, scores = kinds["train"], [line["miou"] for line in kinds["val"] if line["miou"] is not None]
    if not steps:
        return "No step yet."
    speed, wait = (
        float(np.median([line.get(name, math.nan) for line in steps])) for name in ("images_per_second", "data_wait")
    )
    text = f"{steps[-1]['step']} steps{'' if kinds['final'] else ' (not finished)'}; {speed:.1f} images a second"
    if not math.isnan(wait):
        text += f", {100 * wait:.1f} % of the time waiting for data (medians)"
    if scores:
        text += f"; validation mIoU {100 * scores[-1]:.2f} % at the end, {100 * max(scores):.2f} % at best"
    return f"{text}."


def _training_curves(kinds: Lines) -> list[str]:
    """Loss and validation mIoU over the steps, as in Fig. 7."""
    losses, size = loss_curve(kinds["train"], 200)
    scores = {f"guidance {mode}": score_curve(kinds["val"], f"miou_guidance_{mode}") for mode in ("off", "on")}
    words = f"Loss, each point the mean of {size} step{'s' if size > 1 else ''}"
    return [
        curves({"training loss": losses}, x_label="step", y_label="loss", caption=words),
        curves(scores, x_label="step", y_label="mIoU, %", caption="Validation mIoU"),
    ]


def _result_tables(final: Mapping[str, Any]) -> list[str]:
    results = final["guidance_off"], final["guidance_on"]

    def row(name: str, *values: float | None) -> list[Any]:
        return [name, *(None if value is None else 100 * value for value in values)]

    names = (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy"), ("mean accuracy", "mean_accuracy"))
    means = [row(title, *(result[key] for result in results)) for title, key in names]
    classes = [row(name, *(result["iou"][name] for result in results)) for name in results[0]["iou"]]
    head = ("guidance off", "guidance on")
    return [Table("", ("%", *head), means).html(), Table("", ("IoU of each class, %", *head), classes).html()]


def _pictures(folder: Path) -> Iterator[str]:
    """The last sheet of validation images, and three of the earlier ones, smaller."""
    sheets = sorted((folder / "pictures").glob("step_*.png"))
    shown = dict.fromkeys([*sheets[:: max(1, len(sheets) // 3)][:3], *sheets[-1:]])
    if shown:
        yield heading("Pictures")
    for path in reversed(shown):
        try:
            with Image.open(path) as image:
                pixels = reduced(np.asarray(image.convert("RGB")), widest=1600 if path == sheets[-1] else 800)
            yield picture(pixels, f"step {int(path.stem[5:])}: {COLUMNS}")
        except (OSError, Image.DecompressionBombError) as error:  # the rest is worth as much without it
            yield paragraph(f"{path.name}: cannot be shown ({error})")


def write_report(folder: Path) -> Path:
    """Writes report.html into a run folder."""
    path = folder / "report.html"
    write_output("report", path, run_report(folder))
    return path
