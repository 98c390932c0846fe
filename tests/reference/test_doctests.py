"""Every example in the docstrings of the reference is true."""

import doctest
from importlib import import_module

import pytest

from segmodel import reference


@pytest.mark.parametrize("name", ["", *(f".{module}" for module in reference.MODULES)])
def test_doctests(name: str) -> None:
    module = import_module(f"segmodel.reference{name}")
    outcome = doctest.testmod(module)
    assert outcome.failed == 0
    assert outcome.attempted > 0 or name == ".errata"
