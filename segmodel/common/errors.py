"""What the user got wrong: errors of one printable line, and limits on what is read from outside.

The limits are environment variables, which loader workers inherit:

    SEGMODEL_MAX_PIXELS        pixels of an image or label file (89,478,485: where Pillow begins to warn)
    SEGMODEL_MAX_LIST_BYTES    bytes of a list of files (64 MiB)
    SEGMODEL_MAX_CONFIG_BYTES  bytes of a configuration or a classes.toml (1 MiB)
    SEGMODEL_MAX_JSON_BYTES    bytes of COCO's file of instances (2 GiB)
    SEGMODEL_FOLLOW_LINKS      1: an entry of a list may be a link that leads out of the data root (0)
"""

from __future__ import annotations

import os
from pathlib import Path

LIMITS = {
    "SEGMODEL_MAX_PIXELS": 89_478_485,
    "SEGMODEL_MAX_LIST_BYTES": 1 << 26,
    "SEGMODEL_MAX_CONFIG_BYTES": 1 << 20,
    "SEGMODEL_MAX_JSON_BYTES": 1 << 31,
    "SEGMODEL_FOLLOW_LINKS": 0,
}


def printable(text: str) -> str:
    """Line ends and whatever else a terminal would obey, escaped: a file name may hold anything."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Note(UserWarning):
    """Something to know that is no error: a command prints it as a line."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line that names it (exit status 2)."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class DataError(ValueError):
    """What is wrong with the data: a line each, that names the thing, its file, what was expected and what was found.

    As a text the first line, with the number of the others (exit status 2). advice: lines that the command prints below
    it, such as a file that is missing; "" if there is none.
    """

    advice = ""

    def __init__(self, *lines: str):
        super().__init__(*map(printable, lines))

    def __str__(self) -> str:
        more = f" (and {len(self.args) - 1} more: python -m segmodel.data check lists them)" if self.args[1:] else ""
        return f"{self.args[0]}{more}"


def limit(name: str) -> int:
    """The value of one of the limits above.

    Raises:
        UserError: the environment variable is not a whole number of at least 0.
    """
    text = os.environ.get(name, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UserError(f"{name}: expected a whole number of at least 0, got {text!r}")
    return int(text or LIMITS[name])


def read_text(path: str | Path, *, most: str, encoding: str = "utf-8") -> str:
    """The text of a file that holds no more bytes than the limit ``most`` says.

    Raises:
        OSError: it cannot be read. ValueError: it is longer, or not of this encoding.
    """
    bytes_allowed = limit(most)
    with open(path, "rb") as file:
        content = file.read(bytes_allowed + 1)
    if len(content) > bytes_allowed:
        raise ValueError(f"expected at most {bytes_allowed} bytes ({most}), got more")
    return content.decode(encoding)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
