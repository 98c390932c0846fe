"""One table of what strangers' files, mistyped settings and wrong arrays lead to: one line that names the thing, what
was expected and what was found (exit status 2, or ValueError), or the documented right result. What was there stays.
"""

import os
import shutil
from pathlib import Path

import pytest
from bad_input_commands import COMMANDS, FUNCTIONS
from bad_input_files import CLASS_FILES, IMAGES, INSTANCES, LABELS, LEARNT, LISTS
from bad_input_imports import IMPORTS
from bad_input_readers import READERS
from bad_input_tools import Kind, Outcome, Room, furnish, time_limit
from bad_input_values import ARRAYS, CHECKPOINTS, CONFIGURATION

SECONDS = 60  # for what takes one: a reader that waits for ever is stopped
KINDS: list[Kind] = [*IMAGES, *LABELS, *LEARNT, *INSTANCES, *LISTS, *CLASS_FILES, *CONFIGURATION, *CHECKPOINTS, *ARRAYS,
                     *COMMANDS, *FUNCTIONS, *IMPORTS, *READERS]  # fmt: skip


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("furnished")
    furnish(path)
    return path


def one_line(text: str) -> str:
    assert len(text.splitlines()) == 1, text
    assert text.strip("\n").isprintable(), text
    return text


def attempted(kind: Kind, room: Room) -> object:
    """What came of it: a command's outcome, the result of a function, or the error that it documents."""
    try:
        return kind.attempt(room)
    except ValueError as error:
        return error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_bad_input(kind: Kind, furnished: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with time_limit(SECONDS):
        result = attempted(kind, Room(Path(), capsys))
    if isinstance(result, ValueError):
        assert str(kind.expected) in one_line(str(result))
    elif isinstance(result, Outcome):
        assert str(kind.expected) in one_line(result.errors), result
        assert result.errors.startswith(("segmodel.", "segmodel: "))
        assert result.status == kind.status
        assert result.harmed == []
    else:
        assert result == kind.expected
    assert not os.path.exists("harmed.txt")


def test_the_table_has_each_kind_once():
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names)) >= 400
