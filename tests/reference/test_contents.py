"""The table of contents has an entry for every equation, and loading the reference loads neither torch nor triton."""

import subprocess
import sys
from pathlib import Path

import pytest

from segmodel import reference

REQUIRED = [*(f"Eq. {number}" for number in range(1, 18)), "Algorithm 1", "Sec. 3.2", "Sec. 4.1", "Hard mining",
            "Poly schedule", "mIoU"]  # fmt: skip


@pytest.mark.parametrize("entry", REQUIRED)
def test_every_equation_has_an_entry(entry: str) -> None:
    assert entry in reference.CONTENTS


@pytest.mark.parametrize("entry", reference.CONTENTS)
def test_every_entry_is_a_documented_function_that_names_it(entry: str) -> None:
    function = reference.lookup(entry)
    text = function.__doc__ or ""
    assert text
    if entry.startswith("Eq. "):
        number = entry.removeprefix("Eq. ")
        # the equation itself is in the docstring, under its number; learned steps may only name it
        assert rf"\qquad ({number})" in text or entry in text


def test_modules_are_all_the_modules_there_are() -> None:
    folder = Path(reference.__file__).parent
    found = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "page", "figures"}
    assert set(reference.MODULES) == found
    assert {name.split(".")[0] for name in reference.CONTENTS.values()} <= found


def test_nothing_but_numpy_is_loaded() -> None:
    code = (
        "import sys, importlib, segmodel.reference as r\n"
        "assert not {'torch', 'triton', 'numpy'} & set(sys.modules), 'the table of contents is cheap'\n"
        "for name in r.MODULES: importlib.import_module(f'segmodel.reference.{name}')\n"
        "bad = {'torch', 'triton', 'segmodel.kernels', 'segmodel.model', 'PIL'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "assert 'reference' not in sys.modules and 'numpy' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(reference.__file__).parents[2])
