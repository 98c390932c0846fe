"""The report of a run: duration, curves, tables, confusions, pictures, configuration and versions on one page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import DataError, UserError
from segmodel.common.files import write_output
from segmodel.common.html import configuration, curves, folded, heading, heat, page, paragraph, picture, swatches
from segmodel.common.pictures import reduced
from segmodel.common.reading import parse_json, read_text
from segmodel.common.tables import Table
from segmodel.data.images import read_image
from segmodel.training.journal import BOUNDARIES, COLUMNS, loss_curve, read_lines, read_metrics, score_curve
from segmodel.training.run_folder import RunFolder

Lines = Mapping[str, Sequence[Mapping[str, Any]]]
"""Of metrics.jsonl, by kind."""
MOST_CLASSES = 30
"""Of a confusion matrix that is shown whole."""
CONFUSIONS = 12
"""Pairs of classes in the list of the largest confusions."""


def run_report(folder: Path) -> str:
    """The page of a run folder, finished or not: duration, curves, tables, pictures, configuration, versions.

    Raises:
        UserError: not a run folder.
    """
    run = RunFolder(folder)
    try:
        configured = read_text(run.own(run.settings), most="SEGMODEL_MAX_CONFIG_BYTES")
        kinds = read_metrics(folder)
        final = kinds["final"][-1] if _is_finished(kinds) else {}
        blocks = [paragraph(_summary(kinds)), *_sessions(run, final), heading("Training"), *_training_curves(kinds)]
        if final:
            blocks += [heading("Validation set"), *_result_tables(final), *_confusions(final)]
        start = {key: value for line in kinds["start"][-1:] for key, value in line.items()}
    except Exception as error:  # whatever a broken line leads to
        words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{folder}: expected a run folder with config.toml and metrics.jsonl ({words})") from error
    blocks += _pictures(run, final)
    versions = {key: value for key, value in start.items() if key not in ("kind", "step")}
    blocks += [folded("Configuration", configuration(configured)), folded("Versions", configuration(versions))]
    return page(f"segmodel: {folder.resolve().name}", blocks)


def _is_finished(kinds: Lines) -> bool:
    """Whether the last step has its final figures: a run that is extended has those of its first end, too."""
    steps, ends = ([line["step"] for line in kinds[kind]] for kind in ("train", "final"))
    return bool(ends) and ends[-1] >= max(steps, default=0)


def _sessions(run: RunFolder, final: Mapping[str, Any]) -> Iterator[str]:
    """How long the run took, on what, and by which commands."""
    if not run.sessions.exists():  # of a former version
        return
    lines = read_lines(run.own(run.sessions))
    machines = dict.fromkeys(
        f"{line['gpu'] or line['processor']}, {line['cores']} cores, threads: {line['threads']}"
        + (f" in {line['processes']} processes" if line["processes"] > 1 else "")
        for line in lines
    )
    if final.get("seconds") is not None:
        yield paragraph(f"Duration: {timedelta(seconds=round(final['seconds']))} (hours:minutes:seconds), on "
                        f"{'; '.join(machines)}.")  # fmt: skip
    else:
        yield paragraph(f"On {'; '.join(machines)}.")
    yield configuration("\n".join(f"{line['command']}  # {line['time']}, from step {line['step']}" for line in lines))


def _summary(kinds: Lines) -> str:
    steps, scores = kinds["train"], [line["miou"] for line in kinds["val"] if line["miou"] is not None]
    if not steps:
        return "No step yet."
    speed, wait = (
        float(np.median([line.get(name, math.nan) for line in steps])) for name in ("images_per_second", "data_wait")
    )
    text = f"{steps[-1]['step']} steps{'' if _is_finished(kinds) else ' (not finished)'}; {speed:.1f} images a second"
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
        curves({"training loss": losses}, x_label="step", y_label="loss", caption=words, least=0.1),
        curves(scores, x_label="step", y_label="mIoU, %", caption="Validation mIoU", least=5),
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


def _confusions(final: Mapping[str, Any]) -> Iterator[str]:
    """Which classes are taken for which: the whole matrix of a few classes, and the largest confusions."""
    if "confusion" not in final:  # of a former version
        return
    names, counts = list(final["guidance_off"]["iou"]), np.array(final["confusion"], np.float64)
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    if len(names) <= MOST_CLASSES:
        words = "Confusion matrix: of each true class's pixels (row), the share predicted as each class (column), %"
        yield heat(names, shares, corner="truth", caption=words)
    wrong = np.nan_to_num(shares) * (1 - np.eye(len(names)))
    pairs = [np.unravel_index(place, wrong.shape) for place in np.argsort(-wrong, axis=None)[:CONFUSIONS]]
    rows = [[names[true], names[predicted], 100 * wrong[true, predicted], int(counts[true, predicted])]
            for true, predicted in pairs if wrong[true, predicted] > 0]  # fmt: skip
    if rows:
        yield Table("", ("Largest confusions: truth", "predicted", "% of the truth", "pixels"), rows).html()


def _pictures(run: RunFolder, final: Mapping[str, Any]) -> Iterator[str]:
    """The classes' colours, the worst images, the last sheet of validation images, and three of the earlier ones."""
    sheets = sorted(path for path in (run.path / "pictures").glob("step_*.png") if path.stem[5:].isdecimal())
    shown = dict.fromkeys([*sheets[:: max(1, len(sheets) // 3)][:3], *sheets[-1:]])
    if shown:
        yield heading("Pictures")
        columns = f"{', '.join(COLUMNS)} ({BOUNDARIES})"
        yield paragraph(f"From left to right: {columns}. A click shows a picture in its full size.")
        yield from _legend(run)
    if final.get("worst"):
        images = "; ".join(f"{image['name']} {100 * image['miou']:.1f} %" for image in final["worst"])
        yield _sheet(run, run.picture("worst"), f"lowest mIoU at the end, from above: {images}", widest=1600)
    for path in reversed(shown):
        yield _sheet(run, path, f"step {int(path.stem[5:])}", widest=1600 if path == sheets[-1] else 800)


def _sheet(run: RunFolder, path: Path, caption: str, *, widest: int) -> str:
    try:
        return picture(reduced(read_image(run.own(path))[0], widest=widest), caption)
    except (UserError, DataError) as error:  # the rest is worth as much without it
        return paragraph(f"{path.name}: cannot be shown ({str(error).removeprefix(f'{path}: ')})")


def _legend(run: RunFolder) -> Iterator[str]:
    """The classes' colours, of the last checkpoint's card."""
    try:
        card = parse_json(read_text(run.own(run.last.with_suffix(".json")), most="SEGMODEL_MAX_CONFIG_BYTES"))
        yield swatches(card["classes"], np.array(card["palette"]))
    except Exception:  # no checkpoint yet, or one that is no more; the rest is worth as much without it
        return


def write_report(folder: Path) -> Path:
    """Writes report.html into a run folder."""
    path = RunFolder(folder).own(folder / "report.html")
    write_output("report", path, run_report(folder))
    return path
