"""Two kills of each quick command that writes (kills.py has the long form, of all commands)."""

import random

import pytest
from kills import attempt, commands, disturb


@pytest.mark.parametrize("name", ["predict", "evaluate"])
def test_a_killed_command_given_again_ends_as_undisturbed(name, tmp_path):
    command = next(one for one in commands(tmp_path) if one.name == name)
    assert disturb(tmp_path, command, 2, random.Random(0)) == (2, [])


def test_it_would_notice_what_is_lost(tmp_path):
    command = next(one for one in commands(tmp_path) if one.name == "predict")
    output = tmp_path / "labels"
    assert attempt(tmp_path, command, command.arguments(output))[0] == (0, "")
    before = command.result(output)
    assert len(before) == 16  # labels and overlays
    (output / "3.png").write_bytes((output / "4.png").read_bytes())
    after = command.result(output)
    assert [file for file in before if before[file] != after[file]] == ["3.png"]
