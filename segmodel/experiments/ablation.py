"""The ablation as a whole: what its runs predict, and the report of it as text, HTML page and JSON values."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segmodel.common import html
from segmodel.common.device import autocast_dtype, choose_device
from segmodel.common.environment import environment
from segmodel.common.errors import printable
from segmodel.common.options import to_toml
from segmodel.common.tables import Table
from segmodel.data import SegmentationData
from segmodel.data.base import evenly_spaced
from segmodel.experiments import figures, tables
from segmodel.experiments.models import whole_models
from segmodel.experiments.results import run_figures
from segmodel.experiments.runs import AblationOptions, Run
from segmodel.experiments.timing import Times, compare
from segmodel.experiments.variants import Variant
from segmodel.training.settings import SECTIONS

SHOWN = 8
"""Images drawn in the sheets of figures 5 and 6, evenly spaced."""


@dataclass(frozen=True)
class Ablation:
    """What an ablation found: the first table and its plot, then the others.

    ``plot``, ``differences`` and ``figures`` are blocks of a page, ``milliseconds`` the times of Table 4.
    """

    runs: Sequence[Run]
    notes: Sequence[str]
    data: SegmentationData
    tables: Sequence[Table]
    plot: str
    differences: Sequence[str]
    figures: Sequence[str]
    milliseconds: Times

    @property
    def facts(self) -> str:
        data, folder = self.runs[0].config.train.data, self.runs[0].folder.parent
        return f"{data}, val: {len(self.data)} images; {len(self.runs)} runs in {folder}"

    def text(self) -> str:
        """The tables for a terminal."""
        return "\n\n".join([*map(printable, (self.facts, *self.notes)), *(table.text() for table in self.tables)])

    def page(self) -> str:
        """report.html."""
        last = self.runs[-1]
        settings = to_toml({title: getattr(last.config, title) for title in SECTIONS})
        first, *others = (table.html() for table in self.tables)
        notes = [html.paragraph(f"Unlike the others: {note}") for note in self.notes]
        blocks = [html.paragraph(self.facts), *notes, first, self.plot, *self.differences, *others, *self.figures]
        blocks += [html.folded(f"Configuration of {last.name}", html.configuration(settings))]
        blocks += [html.folded("Versions", html.configuration(environment()))]
        return html.page(f"Ablation on {self.data.name}", blocks)

    def values(self) -> dict[str, Any]:
        """The content of results.json."""
        machine = environment()
        return {
            "data": self.runs[0].config.train.data, "images": len(self.data), "classes": list(self.data.classes),
            "notes": list(self.notes), "runs": {run.name: dataclasses.asdict(run.config) for run in self.runs},
            "tables": {table.title: table.records() for table in self.tables}, "milliseconds": self.milliseconds,
            "environment": machine, "versions": machine["versions"],
        }  # fmt: skip


def model_times(
    runs: Sequence[Run], num_classes: int, options: AblationOptions, **where: Any
) -> tuple[Times, dict[Variant, float | None]]:
    """Times of the variants' models by name, and the least milliseconds of each variant; equal models are timed once.

    Args:
        where: ``device`` and ``dtype``.
    """
    models = {run.variant: run.config.model for run in runs}
    names = {model: variant.name for variant, model in reversed(models.items())}
    configs = {names[model]: model for model in models.values()}
    times = compare(whole_models(configs, num_classes, options.time_size, **where), options.time_seconds)
    return times, {variant: times[names[model]]["min"] for variant, model in models.items()}


def evaluate_runs(
    runs: Sequence[Run], notes: Sequence[str], data: SegmentationData, *, classes: list[int], options: AblationOptions
) -> Ablation:
    """All tables and figures; runs whose figures are kept in DIR/figures are not evaluated again.

    Args:
        notes: how runs differ from the first. classes: numbers of those that get a mean of their own, or none.
    """
    train = runs[0].config.train
    device = choose_device(train.device)
    dtype = autocast_dtype(train.precision, device)
    shown = evenly_spaced(len(data), SHOWN)
    found = {
        run.name: run_figures(run.folder, run.folder.parents[1] / "figures" / f"{run.name}.npz", data, shown=shown,
                              device=device, dtype=dtype, others=not run.variant.settings, dense=options.dense)
        for run in runs
    }  # fmt: skip
    results = tables.results_of(runs, found)
    times, milliseconds = model_times(runs, len(data.classes), options, device=device, dtype=dtype)
    curves, rising = figures.figure_7(runs)
    size = "One image of {} x {}".format(*options.time_size)
    made = [
        tables.parts_table(results, milliseconds, classes),
        tables.figures_table(results),
        tables.gains_table(results, classes),
        tables.class_table(results, data.classes),
        tables.table_4(times, f"{size}, {device}, {dtype or 'torch.float32'}"),
        rising,
        *([tables.ceilings_table(data)] if options.ceilings else []),
    ]
    changed = figures.differences(runs, results, data, device=device, dtype=dtype)
    drawn = [*curves, *figures.figures_5_and_6(results, data, shown)]
    return Ablation(runs, notes, data, made, figures.plot(results), changed, drawn, times)
