"""Tables, as text for a terminal, as HTML and as JSON values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from segmodel.common.errors import printable
from segmodel.common.html import heading, paragraph


@dataclass(frozen=True)
class Table:
    """A table whose cells are texts or numbers: floats get two decimals, None and NaN are a dash.

    ``title`` stands above the table and ``note`` below it; both may be empty.

    Raises:
        ValueError: a row with another number of cells than the head.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"rows: expected {len(self.head)} cells, got {len(row)}: {tuple(row)}")

    def text(self) -> str:
        """Columns of equal width: the first one flush left, the others flush right."""
        cells = [[printable(_text(cell, "-")) for cell in row] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for first, *rest in cells]
        lines.insert(1, "-" * len(lines[0]))
        title, note = printable(self.title), printable(self.note)
        return "\n".join(([title, ""] if title else []) + lines + ([note] if note else []))

    def html(self) -> str:
        """A block of a page, see ``segmodel.common.html``."""
        head, *rows = (
            "<tr>" + "".join(f"<{tag}>{escape(_text(cell, '–'))}</{tag}>" for cell in row) + "</tr>"  # noqa: RUF001
            for tag, row in [("th", self.head), *(("td", row) for row in self.rows)]
        )
        body = "\n".join(rows)
        table = f"<figure><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></figure>"
        return (heading(self.title) if self.title else "") + table + (paragraph(self.note) if self.note else "")

    def records(self) -> list[dict[str, Any]]:
        """Each row as a mapping from the names of the columns to its cells."""
        return [dict(zip(self.head, row, strict=True)) for row in self.rows]


def _text(cell: Any, dash: str) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return dash
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
