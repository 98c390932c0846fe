"""Tables, as text and as HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segmodel.common import html


@dataclass(frozen=True)
class Table:
    """One table, printed as text and as HTML."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def text(self) -> str:
        cells = [list(self.head)] + [[_text(cell) for cell in row] for row in self.rows]
        width = [max(len(row[column]) for row in cells) for column in range(len(self.head))]
        lines = [
            row[0].ljust(width[0]) + "".join(f"  {cell:>{wide}}" for cell, wide in zip(row[1:], width[1:], strict=True))
            for row in cells
        ]
        lines.insert(1, "-" * len(lines[0]))
        return "\n".join([self.title, "", *lines] + ([self.note] if self.note else []))

    def html(self) -> str:
        words = html.table(self.head, self.rows)
        return html.heading(self.title) + words + (html.paragraph(self.note) if self.note else "")


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
