"""What is printed is printable, and nothing is printed but by one function."""

import ast
import io
import sys
import warnings
from pathlib import Path

import pytest

import segmodel
from segmodel.common import cli
from segmodel.common.errors import Note
from segmodel.common.tables import Table
from segmodel.common.terminal import Prefixed, say

PACKAGE = Path(segmodel.__file__).parent
NASTY = "a\x1b[2J\r\nb\u202e\udcff\x07"
SHOWN = "a\\x1b[2J\\r\\nb\\u202e\\udcff\\x07"


def test_whatever_a_terminal_would_obey_is_escaped(capsys):
    say(NASTY, Table(NASTY, [NASTY, "x"], [[NASTY, 1.0]], NASTY))
    say(NASTY, error=True)
    out, errors = capsys.readouterr()
    assert errors == f"{SHOWN}\n"
    assert out.startswith(f"{SHOWN}\n{SHOWN}\n\n{SHOWN}")
    assert out.count(SHOWN) == 5
    assert all(line.isprintable() for line in out.split("\n"))


def test_what_the_encoding_lacks_is_escaped(monkeypatch):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", file)
    say("M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller")
    assert file.buffer.getvalue() == b"M\\xfcller\n"


def test_a_note_is_a_line_of_a_command_once(capsys):
    def main(_: object) -> int:
        for _ in range(2):
            warnings.warn(Note("old\nfile"), stacklevel=1)
        return 0

    assert cli.run("train", main, []) == 0
    assert capsys.readouterr().out == "note: old\\nfile\n"


def test_lines_of_several_processes_show_whose_they_are(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Prefixed(file))
    monkeypatch.setattr(Prefixed, "prefix", "run 3: ")
    say("", "two\nlines", Table("", ["a"], [[1]]))
    sys.stdout.write("begun,")
    assert file.getvalue() == "run 3: two\\nlines\nrun 3: a\nrun 3: -\nrun 3: 1\n"
    sys.stdout.write(" done\nnext")
    assert file.getvalue().endswith("1\nrun 3: begun, done\n")
    assert not sys.stdout.isatty()


def test_nothing_else_prints():
    strange = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name == "common/terminal.py" or name.startswith(("reference/", "kernels/")):
            continue
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        strange += [f"{name}: {call}" for call in calls if call in ("print", "tqdm.write", "sys.stdout.write",
                                                                    "sys.stderr.write")]  # fmt: skip
    assert strange == []


@pytest.mark.parametrize("text", ["", "  indented", "-" * 10])
def test_lines_stay_as_they_are(text, capsys):
    say(text)
    assert capsys.readouterr().out == f"{text}\n"
