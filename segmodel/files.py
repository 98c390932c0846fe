"""Files are replaced as a whole: a reader, or a crash at any moment, meets the old content or the new."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file to write; it takes the place of ``path`` when the block ends well and vanishes otherwise."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_atomically(path: Path, text: str) -> None:
    """The file either has the whole text or stays as it was."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
