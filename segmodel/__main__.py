"""``segmodel COMMAND ...`` is ``python -m segmodel.COMMAND ...``; without a command it lists them."""

import runpy
import sys
from collections.abc import Sequence

from segmodel import __version__
from segmodel.common.terminal import say

COMMANDS = {
    "train": "Trains a model",
    "evaluate": "Figures of a trained model, or of an ensemble, on a data set",
    "predict": "Segments pictures",
    "data": "A look at a data set before a model is trained on it",
    "refine": "Sharper boundaries for the output of any segmentation model",
    "tune": "Finds the settings of refine for a model's scores",
    "export": "Exports a model to one ONNX or PyTorch file, and checks it",
    "ablate": "Trains the variants of Table 3 and two peers, and compares them",
    "benchmark": "Times operators, model and loader, and measures memory",
    "batch_norm": "Recomputes the batch-norm statistics of a finished run",
    "report": "Writes the report of a run",
    "reference": "Prints the paper in NumPy as one HTML page",
}


def listing() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  python -m segmodel.{name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join([f"segmodel {__version__}", "", *lines, "", "Each command explains itself with --help."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments (None: of this process) name; the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    name = given[0] if given else ""
    if name in COMMANDS:
        sys.argv = [f"segmodel {name}", *given[1:]]
        runpy.run_module(f"segmodel.{name}", run_name="__main__", alter_sys=True)
    elif given == ["--version"]:
        say(f"segmodel {__version__}")
    elif name in ("", "--help", "-h"):
        say(*listing().split("\n"))
    else:
        text = " ".join(given)
        say(f"segmodel: error: expected a command, got {text!r:.60} (--help lists the commands)", error=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
