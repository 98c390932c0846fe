"""The report of a run: curves, tables, pictures, configuration and versions on one page."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmodel.common.errors import UserError
from segmodel.common.files import write_output
from segmodel.common.html import configuration, curves, heading, page, paragraph, picture, table
from segmodel.training.journal import COLUMNS


def run_report(folder: Path) -> str:
    """The page of a run folder, finished or not: curves, table, pictures, configuration, versions.

    Raises:
        UserError: not a run folder.
    """
    try:
        configured = (folder / "config.toml").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        kinds: dict[str, list[dict[str, Any]]] = {"start": [], "train": [], "val": [], "final": []}
        for line in lines:
            kinds.setdefault(line["kind"], []).append(line)
        blocks = [*_summary(kinds), heading("Training"), *_training_curves(kinds)]
        if kinds["final"]:
            blocks += [heading("Validation set"), *_result_tables(kinds["final"][-1])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # whatever a broken line leads to
        words = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder}: expected a run folder with config.toml and metrics.jsonl ({words})") from error
    sheets = sorted((folder / "pictures").glob("step_*.png"))
    shown = dict.fromkeys([*sheets[:: max(1, len(sheets) // 3)][:3], *sheets[-1:]])
    if shown:
        blocks.append(heading("Pictures"))
    for path in reversed(shown):
        words = f"step {int(path.stem[5:])}: {COLUMNS}"
        try:
            blocks.append(picture(_narrowed(path, 1600 if path == sheets[-1] else 800), words))
        except (OSError, Image.DecompressionBombError) as error:  # the rest is worth as much without it
            blocks.append(paragraph(f"{path.name}: cannot be shown ({error})"))
    blocks += [heading("Configuration"), configuration(configured), heading("Versions")]
    blocks.append(configuration({key: value for line in kinds["start"][-1:] for key, value in line.items()
                                 if key not in ("kind", "step")}))  # fmt: skip
    return page(f"segmodel: {folder.resolve().name}", blocks)


def _summary(kinds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    steps, scores = kinds["train"], [line["miou"] for line in kinds["val"] if line["miou"] is not None]
    if not steps:
        return [paragraph("No step yet.")]
    speed, wait = (
        float(np.median([line.get(name, math.nan) for line in steps])) for name in ("images_per_second", "data_wait")
    )
    text = f"{steps[-1]['step']} steps{'' if kinds['final'] else ' (not finished)'}; {speed:.1f} images a second"
    if not math.isnan(wait):
        text += f", {100 * wait:.1f} % of the time waiting for data (medians)"
    if scores:
        text += f"; validation mIoU {100 * scores[-1]:.2f} % at the end, {100 * max(scores):.2f} % at best"
    return [paragraph(text + ".")]


def _training_curves(kinds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Loss and validation mIoU over the steps, as in Fig. 7."""
    losses = [(line["step"], line["loss"]) for line in kinds["train"] if line["loss"] is not None]
    size = max(1, len(losses) // 200)
    means = [tuple(np.mean(losses[first : first + size], axis=0)) for first in range(0, len(losses), size)]
    blocks = [curves({"training loss": means}, x_label="step", y_label="loss",
                     caption=f"Loss, each point the mean of {size} step{'s' if size > 1 else ''}")]  # fmt: skip
    scores = {
        f"guidance {mode}": [
            (line["step"], math.nan if line[f"miou_guidance_{mode}"] is None else 100 * line[f"miou_guidance_{mode}"])
            for line in kinds["val"]
        ]
        for mode in ("off", "on")
    }
    return [*blocks, curves(scores, x_label="step", y_label="mIoU, %", caption="Validation mIoU")]


def _result_tables(final: Mapping[str, Any]) -> list[str]:
    off, on = final["guidance_off"], final["guidance_on"]
    names = (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy"), ("mean accuracy", "mean_accuracy"))
    means = [(title, _percent(off[key]), _percent(on[key])) for title, key in names]
    rows = [(name, _percent(value), _percent(on["iou"][name])) for name, value in off["iou"].items()]
    head = ("%", "guidance off", "guidance on")
    return [table(head, means), table(("IoU, %", *head[1:]), rows, caption="IoU of each class")]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _narrowed(path: Path, width: int) -> np.ndarray:
    """The pixels of a picture file, at most so wide."""
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    if pixels.width > width:
        pixels = pixels.resize((width, max(1, round(pixels.height * width / pixels.width))), Image.Resampling.BOX)
    return np.asarray(pixels)


def write_report(folder: Path) -> Path:
    """Writes report.html into a run folder."""
    path = folder / "report.html"
    text = run_report(folder)
    write_output("report", path, text)
    return path
