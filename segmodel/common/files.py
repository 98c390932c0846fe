"""The one door for what is written: files are replaced as a whole, links are followed, devices are written into.

A reader, or a crash at any moment, meets the old content of a file or the new. Who writes an output that an option
names is the only one, from when it is checked to when the command ends.
"""

import errno
import json
import math
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from segmodel.common.errors import UserError
from segmodel.common.locks import LOCK, claim, is_locked, lock_beside, short_name

PARTIAL, OLD = ".partial", ".old"
"""Endings of what is not yet in its place, and of a folder that has made room for another one."""
PATIENCE = 10.0
"""Seconds that a FIFO may be without a reader."""
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}
"""What is neither replaced nor written into."""


def destination(path: Path) -> tuple[Path, bool]:
    """Where an output goes: a file, links followed, that is replaced as a whole; or (true) what is written into.

    Written into are standard output and error by whatever name, character devices and FIFOs.

    Raises:
        OSError: a folder, a block device or a socket; links in a circle; a folder on the way that may not be read.
    """
    real = Path(os.path.realpath(path)) if path.is_symlink() else path  # another name may lead where nobody may look
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return real, False
    if stat.S_ISCHR(found.st_mode) or stat.S_ISFIFO(found.st_mode) or _standard(found) is not None:
        return path, True
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"it is {KINDS.get(stat.S_IFMT(found.st_mode), 'no file')}", str(path))
    return real, False


def _standard(found: os.stat_result) -> int | None:
    """The descriptor of standard output or error, if this is what it writes to."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def is_stream(path: Path) -> bool:
    """Whether this output is written into, not replaced."""
    try:
        return destination(path)[1]
    except OSError:
        return False


def _stream(path: Path) -> BinaryIO:
    """Standard output or error, a device or a FIFO, to be written into."""
    descriptor = _standard(os.stat(path))
    if descriptor is not None:
        for file in (sys.stdout, sys.stderr):
            file.flush()
        return os.fdopen(os.dup(descriptor), "wb")
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            descriptor = os.open(path, flags)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, f"nobody reads it, {PATIENCE:g} s long", str(path)) from error
        time.sleep(0.05)
    if hasattr(os, "set_blocking"):
        os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file to write: it replaces ``path`` when the block succeeds, and is deleted when it raises.

    What ``destination`` says is written into gets its content.

    Raises:
        OSError: it cannot be written; ``filename`` is the path that was given.
    """
    target, stream = destination(path)
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    partial = folder / f".{short_name(target)}-{secrets.token_hex(4)}{PARTIAL}"
    try:
        partial.touch(exist_ok=False)
        yield partial
        if stream:
            with partial.open("rb") as file, _stream(target) as output:
                shutil.copyfileobj(file, output)
            partial.unlink()
            return
        with partial.open("rb+") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        partial.replace(target)
        sync_folder(folder)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename == str(partial):
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Names in a folder survive a crash of the machine (nothing to do on Windows)."""
    if os.name == "nt":
        return
    with suppress(OSError):  # file systems that know no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """The file either has the whole text or stays as it was."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def append_line(path: Path, text: str) -> None:
    """Adds a line to a file: all of it or, where it raises, nothing; what stands there is ended first."""
    with path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        line = b"\n" * (file.read(1) not in (b"", b"\n")) + text.encode() + b"\n"
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            file.truncate(size)
            raise


@contextmanager
def replacing_folder(option: str, path: Path) -> Iterator[Path]:
    """A partial folder to fill: it takes the place of ``path`` when the block succeeds, and is deleted when it raises.

    Raises:
        UserError: it cannot be made where the option names it, or another process is about to.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    claim_output(option, path)
    unique = f".{short_name(path)}-{secrets.token_hex(4)}"
    partial, old = (path.with_name(f"{unique}{ending}") for ending in (PARTIAL, OLD))
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{option}: {path}: cannot be written ({error.strerror})") from error
    try:
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
        sync_folder(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def output_file(option: str, given: str, *, endings: tuple[str, ...] = (), overwrite: bool = False) -> Path:
    """The file that an option names, checked before the work whose result it shall hold, and claimed.

    Raises:
        UserError: no file can be written there, its name has another ending, it exists and is to stay, or another
            process is about to write it.
    """
    path = Path(given)
    try:
        target, stream = destination(path)
    except OSError as error:
        if path.is_dir():
            target, stream = path, False
        else:
            raise UserError(f"{option}: {path}: cannot be written ({error.strerror})") from error
    if not target.parent.is_dir() or target.is_dir() or (endings and path.suffix.lower() not in endings):
        kind = f"{' or '.join(endings)} file" if endings else "file"
        raise UserError(f"{option}: expected a {kind} in an existing folder, got {path}")
    if not os.access(path if stream else target.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(f"{option}: {path}: cannot be written (Permission denied)")
    if not stream:
        claim_output(option, target)
        if target.exists() and not overwrite:
            raise UserError(f"{path}: exists already (--overwrite replaces it)")
    return path


def claim_output(option: str, path: Path) -> None:
    """Until the command ends no other process may write this file or folder; what a killed one has left goes."""
    claim(lock_beside(path), f"{option}: {path}")
    name = short_name(path)
    for left in [file for file in path.parent.iterdir() if file.name.startswith(f".{name}-")]:
        if left.suffix == OLD and not path.exists():
            left.rename(path)
        elif left.suffix in (PARTIAL, OLD) and len(left.stem) == len(name) + 10:
            _remove(left)


def claim_folder(option: str, folder: Path) -> None:
    """Until the command ends no other process may write into this folder, which is made; partial files go.

    Raises:
        UserError: it cannot be made, or another process writes into it.
    """
    if claim(folder / LOCK, f"{option}: {folder}"):
        sweep(folder)


def sweep(folder: Path) -> None:
    """Deletes the partial files in a folder that this process alone writes, but for those of outputs of others."""
    for file in folder.rglob(f"*{PARTIAL}"):
        owner = file.name.removeprefix(".").rpartition("-")[0]
        if not is_locked(file.with_name(f".{owner}{LOCK}")):
            _remove(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_output(option: str, path: Path, text: str) -> None:
    """``write_atomically`` for the file that an option names.

    Raises:
        UserError: it cannot be written.
    """
    with writing(option, path):
        write_atomically(path, text)


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Errors of the system become those of an output that an option names.

    Raises:
        UserError: it cannot be written.
    """
    named = f"{option}: " * bool(option)
    try:
        yield
    except OSError as error:
        raise UserError(f"{named}{path}: cannot be written ({error.strerror or error})") from error
    except UnicodeEncodeError as error:  # a path that is no text, such as that of the data in the settings of a run
        line = error.object[: error.end].rpartition("\n")[2]
        raise UserError(f"{named}{path}: cannot be written (expected UTF-8, got {line})") from error


def json_text(values: Any, *, indent: int | None = None) -> str:
    """JSON in which null stands for numbers that are not finite (JSON has none)."""
    return json.dumps(_without_nan(values), indent=indent, allow_nan=False)


def _without_nan(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
