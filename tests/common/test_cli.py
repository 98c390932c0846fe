"""What every command does with errors: one line, an exit status, and a way out where there is one."""

import numpy as np
import pytest
import torch

from segmodel.__main__ import COMMANDS
from segmodel.common import cli


def no_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


@pytest.mark.parametrize("ask", [lambda: np.empty(1 << 48), lambda: torch.empty(1 << 48), no_gpu_memory])
def test_too_little_memory_names_what_takes_less(ask, capsys):
    for command, expected in cli.LESS_MEMORY.items():
        assert command in COMMANDS
        assert cli.run(command, lambda _: ask(), []) == 1
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert text.endswith(f"; what takes less memory: {expected} (--debug shows the trace)\n")


def test_other_errors_do_not_speak_of_memory(capsys):
    assert cli.run("train", lambda _: int("x"), []) == 1
    text = capsys.readouterr().err
    assert text.startswith("segmodel.train: error: ValueError: invalid literal")
    assert "memory" not in text


def test_a_misspelt_option_is_answered_with_the_one_that_is_near(capsys):
    def main(arguments):
        parser = cli.Parser("train", "")
        parser.add_argument("--epochs")
        return int(parser.parse_args(arguments).epochs)

    for given, hint in ((["--epoch=3"], " (did you mean --epochs?)"), (["--epoch", "3"], " (did you mean --epochs?)"),
                        (["--soup", "3"], ""), (["x"], "")):  # fmt: skip
        assert cli.run("train", main, given) == 2
        expected = f"segmodel.train: error: unrecognized arguments: {' '.join(given)}{hint}\n"
        assert capsys.readouterr().err == expected
    assert cli.run("train", main, ["--epochs", "3"]) == 3
