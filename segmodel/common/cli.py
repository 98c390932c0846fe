"""What all commands share: one-line errors, exit status (0 done, 2 the user's input, 1 run time, 130/143 signals)."""

import argparse
import difflib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from segmodel.common.errors import OUT_OF_MEMORY, DataError, Note, UserError
from segmodel.common.locks import claims
from segmodel.common.terminal import say

LESS_MEMORY = {
    "train": "--accumulate, --checkpoint-activations, a smaller --crop or --batch-size",
    "evaluate": "--window, smaller --scales or --batch-size",
    "predict": "--window, smaller --scales or --batch-size",
}
"""What takes less memory, by command."""
RENAMED = {"evaluate": {"--limit": "--images"}, "data check": {"--limit": "--problems"},
           "data show": {"--count": "--images"}}  # fmt: skip
"""Flags of former versions by command, and what they are called now."""


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose errors are one line."""

    def __init__(self, command: str, description: str):
        super().__init__(
            prog=f"python -m segmodel.{command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.command = command
        self.add_argument("--debug", action="store_true", help="show the trace of an error")

    def format_help(self) -> str:
        if len(self._actions) > 15:  # not seventy flags in a paragraph
            needed = [f"{name} " * bool(name) + str(action.metavar or action.dest) for action in self._actions
                      for name in (action.option_strings or [""])[:1] if action.required]  # fmt: skip
            self.usage = " ".join(["%(prog)s [options]", *needed])
        return super().format_help()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [text.partition("=")[0] for text in unknown if text.startswith("--")]
            for flag, name in RENAMED.get(self.command, {}).items():
                if flag in flags:
                    self.error(f"{flag}: is called {name} now")
            near = [name for flag in flags for name in difflib.get_close_matches(flag, self._option_string_actions, 1)]
            hint = f" (did you mean {', '.join(near)}?)" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(message)


def moved(old: str, new: str) -> int:
    """Says that the command of the module ``old`` has become ``new``; the exit status."""
    say(f"segmodel.{old}: error: this is python -m segmodel.{new} now", error=True)
    return 2


@contextmanager
def notes_printed() -> Iterator[None]:
    """What the package warns of becomes a line of a command's output."""
    with warnings.catch_warnings():
        default, shown = warnings.showwarning, set[str]()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, Note):
                default(message, category, *where, **more)
            elif str(message) not in shown and os.environ.get("RANK", "0") == "0":
                shown.add(str(message))
                say(f"note: {message}")

        warnings.showwarning = show
        warnings.simplefilter("always", Note)
        yield


def run(command: str, main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Runs a command's main function and turns exceptions into a line on stderr and an exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with claims(), notes_printed():
            return main(given)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG  # wherever the path is first used
        user = isinstance(error, UserError | DataError) or too_long
        said = str(error).partition("\nException raised from")[0]  # below it PyTorch adds where in its own code
        text = " ".join(said.split()) if user else f"{type(error).__name__}: {' '.join(said.split())}"
        hint = "" if user or "--debug" in given else " (--debug shows the trace)"
        if command in LESS_MEMORY and OUT_OF_MEMORY.search(text):
            hint = f"; what takes less memory: {LESS_MEMORY[command]}{hint}"
        own = os.environ.get("RANK") if os.environ.get("WORLD_SIZE", "1") != "1" else None
        process = f"process {own}: " if own else ""
        say(f"segmodel.{command}: error: {process}{text}{hint}", error=True)
        if isinstance(error, DataError) and error.advice:
            say("", *error.advice.split("\n"), error=True)
        return error.status if isinstance(error, UserError | DataError) else 2 if too_long else 1
