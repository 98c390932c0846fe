"""The table of contents has an entry for every equation, and loading the reference loads neither torch nor triton."""

import subprocess
import sys
from importlib import import_module
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


@pytest.mark.parametrize("entry", reference.CONTENTS)
def test_operator_and_module_exist_and_are_documented(entry: str) -> None:
    _, operator, module = reference.CONTENTS[entry]
    assert operator is None or operator.startswith("kernels.")
    for dotted in filter(None, (operator, module)):
        place, _, name = dotted.rpartition(".")
        thing = getattr(import_module(f"segmodel.{place}"), name)
        assert callable(thing)
        assert thing.__module__ == f"segmodel.{place}", f"{dotted}: defined in {thing.__module__}"
        assert thing.__doc__


def test_one_name_in_three_rooms() -> None:
    """The file of an operator is called as the file of its oracle, and so is the file of the model's part."""
    for entry, (oracle, operator, module) in reference.CONTENTS.items():
        file = oracle.split(".")[0]
        assert operator is None or operator.split(".")[1] == file, entry
        if module and module.startswith("model.") and file != "energy":
            assert module.split(".")[1] in (file, "head"), entry


def test_modules_are_all_the_modules_there_are() -> None:
    folder = Path(reference.__file__).parent
    found = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "page", "figures"}
    assert set(reference.MODULES) == found
    assert {entry.oracle.split(".")[0] for entry in reference.CONTENTS.values()} <= found


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
