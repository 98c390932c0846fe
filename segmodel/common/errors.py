"""What the user got wrong: errors of one printable line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|MemoryError|can't allocate memory")
"""In the name or text of what torch and NumPy raise."""


def printable(text: str) -> str:
    """Line ends and whatever else a terminal would obey, escaped: a file name may hold anything."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Note(UserWarning):
    """Something to know that is no error: a command prints it as a line."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line that names it (exit status 2)."""

    status = 2

    def __init__(self, message: str):
        super().__init__(printable(message))


class NotFiniteError(UserError):
    """A model whose tensors or scores are NaN or infinite: nothing that it predicts is a result (exit status 1)."""

    status = 1


class DataError(ValueError):
    """What is wrong with the data: a line each, that names the thing, its file, what was expected and what was found.

    As a text the first line, with the number of the others (exit status 2). advice: lines that the command prints below
    it, such as a file that is missing; "" if there is none.
    """

    status = 2
    advice = ""

    def __init__(self, *lines: str):
        super().__init__(*map(printable, lines))

    def __str__(self) -> str:
        more = f" (and {len(self.args) - 1} more: python -m segmodel.data check lists them)" if self.args[1:] else ""
        return f"{self.args[0]}{more}"


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def memory_named(what: str) -> Iterator[None]:
    """A lack of memory within the block is an error of one line that says what for: PyTorch's may have a trace in it.

    Raises:
        torch.OutOfMemoryError: of a GPU. MemoryError: of this machine.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
            raise
        kind = type(error) if type(error).__name__ == "OutOfMemoryError" else MemoryError
        raise kind(f"{what}: out of memory ({next(iter(str(error).splitlines()), '')})") from error
