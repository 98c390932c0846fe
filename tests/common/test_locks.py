"""Locks: one holder at a time, gone with its process, whatever it has forked."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segmodel.common import locks
from segmodel.common.errors import Note, UserError
from segmodel.common.locks import Taken, claim, claims, is_locked, locked

HOLDING = (
    "import os, sys, time; from pathlib import Path; from segmodel.common.locks import locked\n"
    "with locked(Path(sys.argv[1]), 'x'):\n"
    "    if os.fork() == 0: print('held', flush=True)\n"  # as a loader's worker, which by now has let go of it
    "    time.sleep(60)\n"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_lock_dies_with_its_process_though_a_child_lives_on(tmp_path):
    file = tmp_path / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(file)], stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "held\n"
        assert is_locked(file)
        with pytest.raises(Taken, match=f"x: is being written by process {process.pid} on "), locked(file, "x"):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        start = time.monotonic()
        with locked(file, "x") as left:
            assert left
        assert time.monotonic() - start < 1
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the child
        process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_leaves_nothing_and_does_not_take_what_is_not_its_own(tmp_path):
    with locked(tmp_path / "a" / ".lock", "x") as left:
        assert not left
        assert is_locked(tmp_path / "a" / ".lock")
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / ".lock", "x"):
        (tmp_path / "a" / "b").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert not is_locked(tmp_path / "a" / ".lock")
    (tmp_path / ".lock").symlink_to(tmp_path / "a" / "b")
    with pytest.raises(UserError, match="x: cannot be written"), locked(tmp_path / ".lock", "x"):
        pass


def test_claims_are_let_go_by_the_command_that_made_them(tmp_path):
    with claims():
        claim(tmp_path / "one", "one")
        with claims():
            claim(tmp_path / "two", "two")
        assert is_locked(tmp_path / "one")
        assert not is_locked(tmp_path / "two")
    assert not is_locked(tmp_path / "one")


def test_where_there_are_no_locks_that_is_said(tmp_path, monkeypatch):
    def none(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", none)
    with pytest.warns(Note, match="cannot be locked here .No locks available"), locked(tmp_path / ".lock", "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_any_length_has_a_lock(tmp_path: Path):
    for name in (255 * "n", 63 * "\N{GRINNING FACE}"):
        with locked(locks.lock_beside(tmp_path / name), "x"):
            assert len(list(tmp_path.iterdir())) == 1
