"""Files are replaced as a whole: a reader, or a crash at any moment, meets the old content or the new."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segmodel.common.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file to write: it replaces ``path`` when the block succeeds, and is deleted when it raises."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb+") as file:  # Windows flushes only what may be written
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


@contextmanager
def replacing_folder(option: str, path: Path) -> Iterator[Path]:
    """A partial folder to fill: it takes the place of ``path`` when the block succeeds, and is deleted when it raises.

    Raises:
        UserError: it cannot be made where the option names it.
    """
    partial, old = (path.with_name(f"{path.name}.{state}") for state in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{option}: {path}: cannot be written ({error.strerror})") from error
    try:
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def output_file(option: str, given: str, *, endings: tuple[str, ...] = (), overwrite: bool = False) -> Path:
    """The file that an option names, checked before the work whose result it shall hold.

    Raises:
        UserError: no file can be written there, its name has another ending, or it exists and is to stay.
    """
    path = Path(given)
    if not path.parent.is_dir() or path.is_dir() or (endings and path.suffix.lower() not in endings):
        kind = f"{' or '.join(endings)} file" if endings else "file"
        raise UserError(f"{option}: expected a {kind} in an existing folder, got {path}")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already (--overwrite replaces it)")
    if not os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(f"{option}: {path}: cannot be written (Permission denied)")
    return path


def write_output(option: str, path: Path, text: str) -> None:
    """``write_atomically`` for the file that an option names.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"{option}: {path}: cannot be written ({error.strerror})") from error


def json_text(values: Any, *, indent: int | None = None) -> str:
    """JSON in which null stands for numbers that are not finite (JSON has none)."""
    return json.dumps(_without_nan(values), indent=indent, allow_nan=False)


def _without_nan(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
