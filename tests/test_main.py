"""``python -m segmodel``: the list of commands; output that is no terminal holds neither colours nor progress bars."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import segmodel
from segmodel.__main__ import COMMANDS, listing, main


def test_every_module_that_is_a_command_is_listed_with_one_line():
    package = Path(segmodel.__file__).parent
    found = set()
    for file in [*package.glob("*.py"), *package.glob("*/__main__.py")]:
        if '__name__ == "__main__"' in file.read_text(encoding="utf-8") and file.name != "__main__.py":
            found.add(file.stem)
        elif file.name == "__main__.py" and file.parent != package:
            found.add(file.parent.name)
    assert found - {"kernels"} == set(COMMANDS)
    lines = listing().split("\n")[2:-2]
    assert len(lines) == len(COMMANDS)
    for line in lines:
        assert re.fullmatch(r"  python -m segmodel\.\w+ +\S.{10,}", line), line
        assert len(line) <= 150


def test_version_and_errors(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"segmodel {segmodel.__version__}\n"
    assert main(["train"]) == 2
    assert "(python -m segmodel.train ...)" in capsys.readouterr().err
    assert main(["fly"]) == 2
    assert "'fly' (--help lists the commands)" in capsys.readouterr().err


def test_the_list_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None\nfrom segmodel.__main__ import main\nsys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "python -m segmodel.train" in done.stdout


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1", "FORCE_COLOR": ""}])
def test_without_a_terminal_there_are_no_colours_and_no_bars(tmp_path, variables):
    np.save(tmp_path / "scene 0.npy", np.zeros(3, np.float32))
    code = (
        "import sys\nfrom segmodel.common import cli\nfrom segmodel.tune import main\n"
        "sys.exit(cli.run('tune', main, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), "--data", "scenes:train=1,val=1", "--images", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables},
                          cwd=Path(__file__).parents[1])  # fmt: skip
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert len(done.stderr.strip().split("\n")) == 1  # the error alone, no bar
