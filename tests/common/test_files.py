"""Outputs: files are replaced as a whole, links followed, devices and FIFOs written into, and all by one door."""

import ast
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import segmodel
from segmodel.common import files
from segmodel.common.errors import UserError
from segmodel.common.files import (
    append_line,
    claim_folder,
    destination,
    output_file,
    replacing,
    replacing_folder,
    sweep,
    write_atomically,
    write_output,
)  # fmt: skip
from segmodel.common.locks import claims, lock_beside, locked

PACKAGE = Path(segmodel.__file__).parent
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.json"
    target.write_text("old")
    (tmp_path / "link.json").symlink_to("real/a.json")
    (tmp_path / "second.json").symlink_to(tmp_path / "link.json")
    (tmp_path / "new.json").symlink_to("real/b.json")
    for name, real in (("link.json", target), ("second.json", target), ("new.json", tmp_path / "real" / "b.json")):
        write_output("--json", output_file("--json", str(tmp_path / name), overwrite=True), name)
        assert (tmp_path / name).is_symlink()
        assert not real.is_symlink()
        assert real.read_text() == name
    assert sorted(path.name for path in (tmp_path / "real").iterdir() if path.suffix == ".json") == ["a.json", "b.json"]


def test_a_link_in_a_circle_or_to_nowhere_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("none/c")
    with pytest.raises(UserError, match=r"--json: .*a: cannot be written \(Too many levels"):
        output_file("--json", str(tmp_path / "a"), overwrite=True)
    with pytest.raises(UserError, match="expected a file in an existing folder"):
        output_file("--json", str(tmp_path / "c"))
    with pytest.raises(OSError, match="Too many levels"):
        write_atomically(tmp_path / "a", "x")
    assert (tmp_path / "a").is_symlink()


def test_a_fifo_is_written_into(tmp_path):
    fifo, got = tmp_path / "pipe", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    write_output("--json", output_file("--json", str(fifo)), 100_000 * "x")
    reader.join()
    assert got == [100_000 * "x"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_fifo_that_nobody_reads_is_an_error_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"--json: .*pipe: cannot be written \(nobody reads it, 0.1 s long\)"):
        write_output("--json", tmp_path / "pipe", "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(not ROOT, reason="makes device nodes, which only root may")
def test_a_device_is_written_into_and_a_block_device_refused(tmp_path):
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(tmp_path / "full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 200))
        (tmp_path / "null").open("wb").close()
    except PermissionError:
        pytest.skip("no device nodes in this container")
    (tmp_path / "link").symlink_to("null")
    for name in ("null", "link"):
        write_output("--json", output_file("--json", str(tmp_path / name)), "x")
        assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(UserError, match="No space left"):
        write_output("--json", tmp_path / "full", "x")
    with pytest.raises(UserError, match=r"disk: cannot be written \(it is a block device"):
        output_file("--json", str(tmp_path / "disk"), overwrite=True)
    assert stat.S_ISCHR((tmp_path / "full").stat().st_mode)
    assert stat.S_ISBLK((tmp_path / "disk").stat().st_mode)


def test_a_socket_and_a_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(UserError, match=r"s: cannot be written \(it is a socket\)"):
            output_file("--json", "s", overwrite=True)
        with pytest.raises(OSError, match="it is a socket"):
            write_atomically(Path("s"), "x")
    with pytest.raises(OSError, match="it is a folder"):
        write_atomically(tmp_path, "x")


PRINTING = (
    "import sys; from pathlib import Path; from segmodel.common.files import output_file, write_output\n"
    "print('before'); write_output('--json', output_file('--json', sys.argv[1]), 'written\\n'); print('after')\n"
)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
@pytest.mark.parametrize("name", ["/dev/stdout", "itself"])
def test_standard_output_is_written_in_turn_even_if_it_is_a_file(tmp_path, name):
    place = tmp_path / "out.txt"
    with place.open("wb") as file:
        subprocess.run([sys.executable, "-c", PRINTING, name if name != "itself" else str(place)], stdout=file,
                       check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert place.read_text() == "before\nwritten\nafter\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_the_partial_file_is_unique_and_goes_with_an_error(tmp_path):
    file = tmp_path / (250 * "n")
    with replacing(file) as one, replacing(file) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert file.read_text() == "one"
    with pytest.raises(UnicodeEncodeError), replacing(file) as partial:
        partial.write_text("three \udc80")
    assert file.read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    (tmp_path / ".a.json-0123abcd.partial").write_text("left")
    (tmp_path / ".ab.json-0123abcd.partial").write_text("of another file")
    with claims():
        output_file("--json", str(tmp_path / "a.json"))
        assert sorted(path.name for path in tmp_path.iterdir()) == [".a.json.lock", ".ab.json-0123abcd.partial"]
    with locked(lock_beside(tmp_path / "ab.json"), ""):
        (tmp_path / "last.safetensors.partial").write_text("of a former version")
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / ".x.png-0123abcd.partial").write_text("left")
        sweep(tmp_path)
        assert {path.name for path in tmp_path.rglob("*")} == {".ab.json-0123abcd.partial", ".ab.json.lock", "pictures"}
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_folder_is_replaced_as_a_whole_its_link_stays_and_one_killed_half_way_comes_back(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_text("")
    (tmp_path / "link").symlink_to("real")
    with claims(), replacing_folder("--output", tmp_path / "link") as partial:
        (partial / "new").write_text("")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["new"]
    (tmp_path / "real").rename(tmp_path / ".real-0123abcd.old")  # killed between the two renames
    with pytest.raises(KeyError), claims(), replacing_folder("--output", tmp_path / "real"):
        raise KeyError
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["new"]
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


def test_a_second_writer_is_refused_until_the_command_ends(tmp_path):
    with claims():
        output_file("--json", str(tmp_path / "a"))
        output_file("--json", str(tmp_path / "a"))  # the same command may ask twice
        with claims(), pytest.raises(UserError, match=rf"--output: .*a: is being written by process {os.getpid()} on"):
            output_file("--output", str(tmp_path / "a"))
        claim_folder("--output", tmp_path / "new" / "deep")
        with claims(), pytest.raises(UserError, match="deep: is being written by"):
            claim_folder("--output", tmp_path / "new" / "deep")
    with claims():
        output_file("--json", str(tmp_path / "a"))
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]  # the parent of the folder that nothing came into


def test_a_line_is_added_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "lines"
    append_line(file, "one")
    file.open("a").write("torn")
    append_line(file, "two")
    assert file.read_text() == "one\ntorn\ntwo\n"
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_line(file, 10 * "long")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == "one\ntorn\ntwo\n"


DOOR = {"common/files.py", "common/locks.py"}
PRIVATE = {"data/importing/labelme.py", "data/importing/write.py", "inference/windows.py", "experiments/timing.py"}
"""What they write lies in a partial file or folder of their caller, or is the system's."""


def writes(tree: ast.AST) -> list[str]:
    """Calls that write a file which is not called ``partial``."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        given = [ast.unparse(argument) for argument in [*node.args, *(word.value for word in node.keywords)]]
        modes = [text for text in given if text.strip("'") in {f"{a}{b}" for a in "wax" for b in ("", "b", "b+", "+")}]
        writing = name in ("write_text", "write_bytes", "savetxt", "copyfile", "copy", "copy2", "touch") or (
            name == "open" and modes)  # fmt: skip
        where = [ast.unparse(node.func.value)] if isinstance(node.func, ast.Attribute) else []
        if writing and name != "copy" and not any("partial" in text for text in [*where, *given]):
            found.append(ast.unparse(node))
    return found


def test_there_is_one_door_for_what_is_written():
    strange = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name not in DOOR | PRIVATE and not name.startswith(("reference/", "kernels/")):
            strange[name] = writes(ast.parse(file.read_text()))
    strange = {name: calls for name, calls in strange.items() if calls}
    assert strange == {"training/run_folder.py": ["self.settings.touch()"]}  # it claims a folder, held already
    assert writes(ast.parse("Path('a').write_text('')\nopen('a', 'w')\nx.open('ab')")) != []


def test_a_text_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--output: .*a: cannot be written \(expected UTF-8, got data = own.udcff\)"):
        write_output("--output", tmp_path / "a", "[train]\ndata = own\udcff\n")
    assert list(tmp_path.iterdir()) == []


def test_destinations(tmp_path):
    (tmp_path / "file").write_text("")
    assert destination(tmp_path / "file") == (tmp_path / "file", False)
    assert destination(tmp_path / "none") == (tmp_path / "none", False)
    os.mkfifo(tmp_path / "pipe")
    assert destination(tmp_path / "pipe") == (tmp_path / "pipe", True)
