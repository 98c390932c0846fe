"""``python -m segmodel``: the list of commands; output that is no terminal holds neither colours nor progress bars."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import segmodel
from segmodel.__main__ import COMMANDS, listing


def test_every_module_that_is_a_command_is_listed_with_one_line():
    package = Path(segmodel.__file__).parent
    files = [*package.glob("*.py"), *package.glob("*/__main__.py")]
    texts = {file: file.read_text(encoding="utf-8") for file in files if file != package / "__main__.py"}
    commands = [file for file, text in texts.items() if '__name__ == "__main__"' in text and "cli.moved" not in text]
    found = {file.parent.name if file.name == "__main__.py" else file.stem for file in commands}
    assert found == set(COMMANDS)
    lines = listing().split("\n")[2:-2]
    assert len(lines) == len(COMMANDS)
    for line in lines:
        assert re.fullmatch(r"  python -m segmodel\.\w+ +\S.{10,}", line), line
        assert len(line) <= 150


def run(*arguments: str, folder: Path = Path(__file__).parents[1], **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "segmodel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **variables})


def test_version_list_and_errors():
    assert run("--version").stdout == f"segmodel {segmodel.__version__}\n"
    assert run().stdout == run("--help").stdout == listing() + "\n"
    done = run("fly", "away")
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected a command, got 'fly away' (--help lists the commands)" in done.stderr


def test_a_command_is_the_module_of_its_name(tmp_path):
    done = run("predict", "nothing", "--output", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("segmodel.predict: error: ")
    assert "usage: python -m segmodel.data" in run("data", "--help").stdout
    assert "usage: python -m segmodel.reference" in run("reference", "--help").stdout


def test_the_list_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['segmodel']\nfrom segmodel.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "python -m segmodel.train" in done.stdout


def test_links_that_became_text_files_are_named_in_one_line(tmp_path):
    package = tmp_path / "segmodel"
    package.mkdir()
    (package / "__init__.py").write_bytes(Path(segmodel.__file__).read_bytes())
    (package / "kernels").write_text("../kernels")
    done = run(folder=tmp_path)
    assert done.returncode == 1
    assert "must be links to ../kernels and ../reference" in done.stderr.strip().splitlines()[-1]


def test_a_folder_called_segmodel_does_not_hide_the_package(tmp_path):
    """A clone in its parent folder, or a folder of results."""
    try:
        metadata.distribution("segmodel")
    except metadata.PackageNotFoundError:
        pytest.skip("segmodel is not installed here")
    (tmp_path / "segmodel" / "runs").mkdir(parents=True)
    done = run("--version", folder=tmp_path, PYTHONPATH="")
    assert done.stdout == f"segmodel {segmodel.__version__}\n", done.stderr


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
