"""What there is: the commands of this package, one line each."""

import ast
import sys
from importlib import resources

from segmodel import __version__

COMMANDS = {
    "train": "train", "evaluate": "evaluate", "predict": "predict", "data": "data/__main__", "refine": "refine",
    "tune": "tune", "export": "export", "ablate": "ablate", "benchmark": "benchmark",
    "batch_norm": "batch_norm", "report": "report", "reference": "reference/__main__",
}  # fmt: skip
"""Module name -> the source file with its description."""


def first_line(file: str) -> str:
    """The first line of a module's docstring, read without importing it (torch takes seconds)."""
    source = resources.files("segmodel").joinpath(*f"{file}.py".split("/")).read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    return text.split("\n")[0].split(": python -m")[0].split(": ``python -m")[0].rstrip(".")


def listing() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  python -m segmodel.{name:<{width}}  {first_line(file)}" for name, file in COMMANDS.items()]
    return "\n".join([f"segmodel {__version__}", "", *lines, "", "Each command explains itself with --help."])


def main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"segmodel {__version__}")
    elif arguments in ([], ["--help"], ["-h"]):
        print(listing())
    else:
        given = " ".join(arguments if arguments[0] == "--version" else arguments[:1])
        hint = f"python -m segmodel.{arguments[0]} ..." if arguments[0] in COMMANDS else "--help lists the commands"
        print(f"segmodel: error: expected --version or nothing, got {given!r:.60} ({hint})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
