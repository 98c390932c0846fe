"""What commands print: lines in which nothing is left that a terminal would obey or cannot show."""

import io
import sys
from typing import TextIO

from tqdm import tqdm

from segmodel.common.errors import printable
from segmodel.common.tables import Table


def say(*lines: str | Table, error: bool = False) -> None:
    """Prints lines, or tables, at once, above any progress bar; on stderr if it is an ``error``.

    Escaped are line ends within a line, control characters, bytes of file names that are no text, and what the
    terminal's encoding does not have.
    """
    file = sys.stderr if error else sys.stdout
    for line in lines:
        for text in line.text().split("\n") if isinstance(line, Table) else [line]:
            tqdm.write(shown(text, file), file=file)
    file.flush()


def shown(text: str, file: TextIO) -> str:
    """A text as it may be printed to this file."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


class Prefixed(io.TextIOBase):
    """A text file, no terminal, that writes whole lines to another one: ``prefix`` before each, no empty ones.

    So each line of several processes shows where it comes from, and there are no progress bars.
    """

    prefix = ""

    def __init__(self, file: TextIO):
        self.file, self.begun = file, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.file.encoding

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        self.file.write("".join(f"{self.prefix}{line}\n" for line in lines if line))
        self.file.flush()
        return len(text)

    def flush(self) -> None:
        self.file.flush()
