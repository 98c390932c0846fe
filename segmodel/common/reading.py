"""The one door for files from outside: regular files alone, none larger than a stated limit, texts not nested too deep.

A pipe, socket or device in the place of a file is refused before it is opened for good: nothing waits for a writer that
never comes. The limits are environment variables, which loader workers inherit:

    SEGMODEL_MAX_PIXELS         pixels of an image or label file (89,478,485: where Pillow begins to warn)
    SEGMODEL_MAX_PICTURE_BYTES  bytes of such a file (1 GiB)
    SEGMODEL_MAX_ARRAY_BYTES    bytes of a checkpoint, weight file or array that is read into memory (16 GiB)
    SEGMODEL_MAX_LIST_BYTES     bytes of a list of files (64 MiB)
    SEGMODEL_MAX_CONFIG_BYTES   bytes of a configuration, a card or a classes.toml (1 MiB)
    SEGMODEL_MAX_JSON_BYTES     bytes of COCO's file of instances, of a run's journal, of --per-image figures (2 GiB)
    SEGMODEL_MAX_ARCHIVE_BYTES  bytes that a .zip unpacks to (64 GiB), and
    SEGMODEL_MAX_ARCHIVE_FILES  files in it (2,000,000)
    SEGMODEL_FOLLOW_LINKS       1: an entry of a list may be a link that leads out of the data root (0)
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from segmodel.common.errors import UserError

LIMITS = {
    "SEGMODEL_MAX_PIXELS": 89_478_485,
    "SEGMODEL_MAX_PICTURE_BYTES": 1 << 30,
    "SEGMODEL_MAX_ARRAY_BYTES": 1 << 34,
    "SEGMODEL_MAX_LIST_BYTES": 1 << 26,
    "SEGMODEL_MAX_CONFIG_BYTES": 1 << 20,
    "SEGMODEL_MAX_JSON_BYTES": 1 << 31,
    "SEGMODEL_MAX_ARCHIVE_BYTES": 1 << 36,
    "SEGMODEL_MAX_ARCHIVE_FILES": 2_000_000,
    "SEGMODEL_FOLLOW_LINKS": 0,
}
KINDS: dict[str, Callable[[int], bool]] = {
    "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK, "a device": stat.S_ISCHR, "a block device": stat.S_ISBLK,
}  # fmt: skip
"""What may lie where a file is expected; a folder is left to the system's own error."""
DEPTH = 16
"""Most dotted parts of a TOML key: Python's reader takes time quadratic in their number."""
_PART = r"(?:[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')"
_DOTTED = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEPTH}}}")


def limit(name: str) -> int:
    """The value of one of the limits above.

    Raises:
        UserError: the environment variable is not a whole number of at least 0.
    """
    text = os.environ.get(name, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UserError(f"{name}: expected a whole number of at least 0, got {text!r}")
    return int(text or LIMITS[name])


def open_file(path: str | Path, *, most: str | None) -> BinaryIO:
    """A regular file, open for reading, of no more bytes than the limit ``most`` says (None: it is read in parts).

    Raises:
        OSError: it cannot be opened. ValueError: it is no regular file, or is larger.
    """
    check_regular(os.stat(path), most)  # before it is opened: opening a device may do something
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller closes it)
    try:
        check_regular(os.fstat(file.fileno()), most)
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_regular(found: os.stat_result, most: str | None = None) -> None:
    """A ValueError for what is no regular file (or folder), or is larger than the limit ``most`` says."""
    for kind, is_so in KINDS.items():
        if is_so(found.st_mode):
            raise ValueError(f"expected a regular file, got {kind}")
    if most and found.st_size > limit(most):
        raise ValueError(f"expected at most {limit(most)} bytes ({most}), got {found.st_size}")


def read_bytes(path: str | Path, *, most: str) -> bytes:
    """The content of such a file, see ``open_file``; what is added meanwhile is left out."""
    with open_file(path, most=most) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def read_text(path: str | Path, *, most: str, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The text of such a file, see ``open_file``; also a ValueError if it is not of this encoding."""
    return read_bytes(path, most=most).decode(encoding, errors)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """``json.loads``; a ValueError also where it is nested too deeply or a whole number has more than 64 bits."""
    try:
        return json.loads(text, parse_int=_whole, **options)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_toml(text: str) -> dict[str, Any]:
    """``tomllib.loads``; a ValueError also where it is nested too deeply or a whole number has more than 64 bits."""
    if found := _DOTTED.search(text):
        raise ValueError(f"expected keys of at most {DEPTH} dotted parts, got {found[0]:.60}")
    try:
        content = tomllib.loads(text)
        _check_numbers(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return content


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"expected whole numbers of at most 64 bits, got {digits:.40}")
    return number


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
    elif type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"expected whole numbers of at most 64 bits, got one of {value.bit_length()}")
