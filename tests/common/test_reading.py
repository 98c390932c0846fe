"""Every file from outside comes through one door, and every picture; what the doors refuse."""

import ast
import os
import re
from pathlib import Path

import pytest

import segmodel
from segmodel.common.errors import OUT_OF_MEMORY, memory_named
from segmodel.common.reading import LIMITS, open_file, parse_json, parse_toml, read_bytes, read_text

PACKAGE = Path(segmodel.__file__).parent
READS = re.compile(
    r"^(Image\.open|np\.(load|fromfile|memmap|loadtxt|genfromtxt)|torch\.load|json\.load|tomllib\.loads?|safe_open|"
    r"load_file|rasterio\.open|zipfile\.ZipFile|.*\.read_(text|bytes)|(.*\.)?open)$"
)
"""Names of functions that read a file or a text from outside; and what these end in, which is found sooner."""
LAST = re.compile("open|loads?|from(file|txt)|memmap|loadtxt|genfromtxt|load_file|ZipFile|read_(text|bytes)")
DOORS = {
    "common/reading.py": {"open", "tomllib.loads"},
    "data/images.py": {"Image.open"},
    # of files that these have opened through the door, or have looked at through it before
    "model/tensors.py": {"torch.load", "zipfile.ZipFile"},
    "inference/inputs.py": {"np.load"},
    "inference/windows.py": {"np.load", "rasterio.open"},
    "experiments/results.py": {"np.load"},
    "data/importing/command.py": {"zipfile.ZipFile"},
    # what is no file from outside: the system's, the package's own, and what was written a moment ago
    "common/environment.py": {"Path('/proc/cpuinfo').read_text"},
    "experiments/timing.py": {"Path('/proc/self/status').read_text"},
    "common/files.py": {"partial.open"},
    "common/locks.py": {"file.read_text"},
    "common/html.py": {"(resources.files('segmodel.common') / 'report.css').read_text"},
    "inference/explore.py": {
        "(resources.files('segmodel.inference') / 'explore.js').read_text",
        "(paper / 'live.css').read_text",
        "(paper / name).read_text",
    },
    "experiments/exported.py": {"path.open", "path.read_bytes"},
}
"""File -> the calls that it may make."""


def mode(call: ast.Call) -> str:
    """The mode of a call of open; "" if it has none."""
    texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    return next((text for text in texts if isinstance(text, str) and re.fullmatch(r"[rwaxbt+]+", text)), "")


def reading(source: str) -> set[str]:
    """The calls in a module that read files."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        last = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", ""))
        if LAST.fullmatch(last) and READS.match(name := ast.unparse(node.func)):  # type: ignore[attr-defined]
            is_open = name.rpartition(".")[2] == "open" and name not in ("Image.open", "rasterio.open")
            own = name in ("kind.open", "os.open", "kinds.open")  # of a data set; of the door itself
            if not own and not (is_open and set(mode(node)) & set("wax+")):
                found.add(name)
    return found


def test_no_file_and_no_picture_is_read_beside_the_doors():
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if not name.startswith(("kernels/", "reference/")):
            assert reading(file.read_text(encoding="utf-8")) - DOORS.get(name, set()) == set(), name


@pytest.mark.parametrize("line", ["Image.open(path)", "path.read_text()", "open(path)", "p.open('rb')", "np.load(path)",
                                  "torch.load(file, weights_only=True)", "Path(x).read_bytes()"])  # fmt: skip
def test_the_search_finds_them(line):
    assert len(reading(line)) == 1
    assert reading("with p.open('wb') as file: pass\nopen(x, 'a')") == set()


def test_pillow_is_never_asked_for_what_starts_a_program(tmp_path, monkeypatch):
    """Were it, it would find Ghostscript where it looks for it."""
    from PIL import EpsImagePlugin

    from segmodel.data.images import open_picture

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: started.append(given))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"^cannot identify image file"), open_picture(tmp_path / "a.png") as image:
        image.load()
    assert started == []


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(ValueError, match=r"^expected a regular file, got a pipe$"):
            open_file(tmp_path / name, most="SEGMODEL_MAX_LIST_BYTES")
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path, most=None)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none", most="SEGMODEL_MAX_LIST_BYTES")


@pytest.mark.parametrize("name", [name for name in LIMITS if name.endswith("_BYTES")])
def test_no_limit_is_passed(tmp_path, monkeypatch, name):
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    monkeypatch.setenv(name, "5")
    assert read_bytes(file, most=name) == b"12345"
    monkeypatch.setenv(name, "4")
    with pytest.raises(ValueError, match=rf"^expected at most 4 bytes \({name}\), got 5$"):
        read_bytes(file, most=name)


def test_texts_that_no_reader_should_take():
    for text in ("[" * 10**5, '{"a":' * 10**5):
        with pytest.raises(ValueError, match=r"^nested too deeply$"):
            parse_json(text)
    for text in ("a = " + "[" * 10**5, "a = " + "{a = " * 10**4):
        with pytest.raises(ValueError, match=r"^nested too deeply$"):
            parse_toml(text)
    for text in (str(2**63), "9" * 5000, f"[{-(2**63) - 1}]"):
        with pytest.raises(ValueError, match="64 bits"):
            parse_json(text)
        with pytest.raises(ValueError, match="64 bits"):
            parse_toml(f"a = [{{b = {text}}}]" if len(text) < 4000 else f"a = 0x{text}")
    assert parse_json(str(2**63 - 1)) == 2**63 - 1
    assert parse_toml(f"a.b.c = {-(2**63)}") == {"a": {"b": {"c": -(2**63)}}}
    with pytest.raises(ValueError, match=r"^expected keys of at most 16 dotted parts, got a.a.a"):
        parse_toml(".".join("a" * 10**5) + " = 1")
    assert parse_toml('a = "' + "a." * 15 + '"') == {"a": "a." * 15}


@pytest.mark.parametrize("error", [MemoryError("9 GiB"), RuntimeError("can't allocate memory: you tried\nframe #0: x")])
def test_a_lack_of_memory_is_one_line_of_the_api(error):
    assert OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}")
    with pytest.raises(MemoryError, match=r"^segment: out of memory \((9 GiB|can't allocate memory: you tried)\)$"), \
            memory_named("segment"):  # fmt: skip
        raise error
    with pytest.raises(RuntimeError, match=r"^else$"), memory_named("segment"):
        raise RuntimeError("else")
