"""Killed at any moment and resumed, a training ends with the same bits; checkpoints are kept, faults are named.

SEGMODEL_TEST_KILLS=10 kills that often (default: 3).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from distributed_tools import SMALL, start, together, train
from safetensors.torch import load_file

from segmodel import ModelConfig, SegModel
from segmodel.common import files
from segmodel.common.errors import UserError
from segmodel.common.files import json_text
from segmodel.model.store import read_checkpoint, save_checkpoint
from segmodel.training import trainer
from segmodel.training.batches import Timed
from segmodel.training.run_folder import RunFolder

TINY = [*SMALL, "--precision", "float32", "--steps", "30", "--validate-every", "5", "--checkpoint-minutes", "0"]


def steps_done(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_text().count('"train"') if file.exists() else 0


def same(first: Path, second: Path) -> bool:
    ours, theirs = load_file(first), load_file(second)
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_killed_again_and_again_a_run_ends_with_the_same_bits(tmp_path):
    kills = int(os.environ.get("SEGMODEL_TEST_KILLS", "3"))
    rng = random.Random()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert together(1, train, [*TINY, "--output", str(whole)]) == [(0, "")]  # as many threads as the disturbed run
    arguments = [*TINY, "--output", str(broken)]
    for at in sorted(rng.sample(range(1, 30), kills)):
        (process,), _ = start(1, train, arguments)
        deadline = time.monotonic() + 200
        while steps_done(broken) < at and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))  # anywhere in a step, a validation or the writing of a checkpoint
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        arguments = ["--resume", str(broken)]
    assert together(1, train, arguments) == [(0, "")]
    for name in ("last", "best"):
        assert same(whole / f"{name}.safetensors", broken / f"{name}.safetensors")
    times = ("images_per_second", "data_wait", "seconds")
    lines = [
        [{key: value for key, value in json.loads(line).items() if key not in times}
         for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, broken)
    ]  # fmt: skip
    assert lines[0] == lines[1]
    assert not list(broken.glob("*.partial"))


def test_the_newest_checkpoints_are_kept_and_can_be_gone_back_to(tmp_path):
    folder = tmp_path / "run"
    arguments = [*TINY, "--steps", "6", "--keep-last", "3", "--validate-every", "0", "--output", str(folder)]
    assert train(arguments) == (0, "")
    kept = sorted(file.name for file in folder.glob("step_*"))
    assert kept == [f"step_00000{step}.{kind}" for step in (4, 5, 6) for kind in ("json", "safetensors")]
    assert same(folder / "last.safetensors", folder / "step_000006.safetensors")
    final = {name: value.clone() for name, value in load_file(folder / "last.safetensors").items()}  # not a view of it
    shutil.copyfile(folder / "step_000004.safetensors", folder / "last.safetensors")  # as cp does
    kept = load_file(folder / "step_000006.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in final.items())
    assert train(["--resume", str(folder)]) == (0, "")
    again = load_file(folder / "last.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in final.items())


def test_what_a_run_went_back_from_goes_first(tmp_path):
    last = tmp_path / "last.safetensors"
    for suffix in (".safetensors", ".json"):
        last.with_suffix(suffix).write_text("state")
    for step in (9, 999_999, 1_000_000):
        RunFolder(tmp_path).keep_step(step, 2)
    assert sorted(file.stem for file in tmp_path.glob("step_*.json")) == ["step_1000000", "step_999999"]
    RunFolder(tmp_path).keep_step(10, 2)  # gone back to step 9
    assert sorted(file.stem for file in tmp_path.glob("step_*.json")) == ["step_000010", "step_1000000"]
    RunFolder(tmp_path).keep_step(11, 2)
    assert sorted(file.stem for file in tmp_path.glob("step_*.json")) == ["step_000010", "step_000011"]


def test_of_two_runs_started_in_one_second_each_has_its_folder(tmp_path):
    folder = tmp_path / "runs" / "2026-01-31_120000"
    with ExitStack() as held:
        claimed = [held.enter_context(RunFolder(folder).claimed(named=False)).path for _ in range(3)]
        assert [found.name for found in claimed] == [folder.name, f"{folder.name}-2", f"{folder.name}-3"]
        with pytest.raises(UserError, match=r"--output: .*120000: is being written by process \d+"):
            held.enter_context(RunFolder(folder).claimed(named=True))
    (folder / "config.toml").write_text("[train]\n")
    with (
        pytest.raises(UserError, match=r"--output: .*: expected an empty or new folder"),
        RunFolder(folder).claimed(named=True),
    ):
        pass


def test_two_runs_without_a_name_in_one_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "now")
    for name in ("now", "now-2"):
        assert train([*TINY, "--steps", "1"])[0] == 0
        assert (tmp_path / "runs" / name / "last.safetensors").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "absent" / "place")
    with pytest.raises(UserError, match=r"^--output: .*runs/now: cannot be made \(File exists\)$"):
        RunFolder(tmp_path / "runs" / "now").claimed(named=False).__enter__()


def test_a_full_disk_leaves_no_empty_settings(tmp_path, monkeypatch):
    def full(file, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_atomically", full)
    status, text = train([*TINY, "--output", str(tmp_path / "run")])
    assert status == 2
    assert text.endswith("config.toml: cannot be written (No space left on device)\n")
    assert not list((tmp_path / "run").iterdir())
    (tmp_path / "run" / "config.toml").touch()  # killed in that very instant
    status, text = train(["--resume", str(tmp_path / "run")])
    assert status == 2
    assert "config.toml: expected the settings of a run, got an empty file" in text


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the loader's process in /proc")
@pytest.mark.parametrize("who", ["group", "worker"])
def test_a_signal_to_the_loader_loses_no_step(tmp_path, who):
    """As timeout, a batch system or the memory killer send it."""
    folder = tmp_path / "run"
    arguments = [*SMALL, "--precision", "float32", "--steps", "4000", "--validate-every", "0", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "segmodel.train", *arguments, "--output", str(folder)],
        start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while steps_done(folder) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    done = steps_done(folder)
    if who == "group":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
    _, error = process.communicate(timeout=200)
    assert process.returncode == (143 if who == "group" else 1), error
    assert json.loads((folder / "last.json").read_text())["step"] >= done >= 3


LOADED = (
    "import signal, sys, torch\n"
    "from segmodel.data import Augmentation, AugmentedData, open_data\n"
    "from segmodel.training.batches import BatchKeys, load_batches\n"
    "if __name__ == '__main__':\n"
    "    if len(sys.argv) > 2: del signal.SIGCHLD\n"
    "    data = AugmentedData(open_data('scenes:train=4', split='train'), Augmentation(crop=(32, 32)), seed=1)\n"
    "    keys = BatchKeys(4, 2, 0, 0, 1000)\n"
    "    batches = load_batches(data, keys, workers=int(sys.argv[1]), device=torch.device('cpu'))\n"
    "    print(tuple(next(batches).images.shape))\n"
)
"""A program that takes one batch of a thousand, and ends."""


@pytest.mark.parametrize(("workers", "more"), [("1", []), ("0", ["as on Windows"])])
def test_a_program_ends_with_its_loader(tmp_path, workers, more):
    (tmp_path / "program.py").write_text(LOADED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(tmp_path / "program.py"), workers, *more], capture_output=True,
                          text=True, timeout=120, env=environment)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "(2, 3, 32, 32)\n"), done.stderr


def keep_replacing(file: Path, sources: Sequence[Path]) -> None:
    while True:
        for source in sources:
            shutil.copyfile(source, file.with_suffix(".partial"))
            file.with_suffix(".partial").replace(file)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_no_mixture(tmp_path):
    """Other processes read runs that are still trained."""
    model = SegModel(2, ModelConfig(depth=18, width=4, stem_width=4, label_hidden=4, rings=((1, 2),), label_pool=5))
    file, sources = tmp_path / "last.safetensors", [tmp_path / f"{step}.safetensors" for step in range(3)]
    for step, source in enumerate(sources):  # the last one is larger, by its header
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, step)
        save_checkpoint(source, model, {"step": step, "remark": 1000 * (step // 2) * " "})
    names = [name for name, _ in model.named_parameters()]
    shutil.copyfile(sources[0], file)
    (process,), _ = start(1, keep_replacing, file, sources)
    before, changes, deadline = 0, 0, time.monotonic() + 200
    try:
        while changes < 100 and time.monotonic() < deadline:
            card, tensors = read_checkpoint(file)
            assert all((tensors[name] == card["step"]).all() for name in names)
            assert read_checkpoint(file, weights=False)[0]["step"] in range(3)
            changes, before = changes + (card["step"] != before), card["step"]
    finally:
        process.kill()
        process.join()
    assert changes == 100


def test_torchrun_without_a_folder_or_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    status, text = train(TINY)
    assert status == 2
    assert "--output: expected with torchrun --max-restarts" in text
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text("")  # died before the first checkpoint
    assert train([*TINY, "--steps", "1", "--output", str(folder)]) == (0, "")
    (folder / "config.toml").unlink()
    (folder / "last.safetensors").unlink()
    assert train([*TINY, "--output", str(folder)])[0] == 2  # somebody else's folder


def test_a_loss_that_is_not_finite_names_the_files_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    original, count = trainer.training_step, 0

    def step(model, *given, **options):
        nonlocal count
        count += 1
        if count == 4:
            with torch.no_grad():
                model.backbone.conv1.weight[0] = float("inf")
        return original(model, *given, **options)

    monkeypatch.setattr(trainer, "training_step", step)
    folder = tmp_path / "run"
    status, text = train([*TINY, "--batch-size", "4", "--output", str(folder)])
    assert status == 1
    assert len(text.splitlines()) == 1
    assert "FloatingPointError: the loss is nan at step 3" in text
    assert text.count("train-000") == 4
    assert str(folder / "last.safetensors") in text
    assert json.loads((folder / "last.json").read_text())["step"] == 3
    monkeypatch.undo()
    assert train(["--resume", str(folder)])[0] == 0


def test_tensorboard_is_asked_for_only_where_it_is(tmp_path):
    arguments = [*TINY, "--steps", "1", "--tensorboard", "--output", str(tmp_path / "run")]
    status, text = train(arguments)
    if find_spec("tensorboard") is None:
        assert status == 2
        assert "--tensorboard: pip install segmodel[tensorboard] is needed first" in text
        assert not (tmp_path / "run").exists()
        return
    assert status == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_null_where_a_number_is_not_finite(value):
    text = json_text({"NaN": [1.5, (value, "NaN")], "b": {"c": value}, "d": True})
    assert json.loads(text) == {"NaN": [1.5, [None, "NaN"]], "b": {"c": None}, "d": True}


def test_the_wait_for_an_item_is_measured_alone(monkeypatch):
    now = 0.0
    monkeypatch.setattr("segmodel.training.batches.time.monotonic", lambda: now)

    def slow():
        nonlocal now
        for item in range(3):
            now += 2 + item
            yield item

    timed = Timed(slow())
    for item in timed:
        assert timed.waited == 2 + item
        now += 100
    assert timed.waited == 4
