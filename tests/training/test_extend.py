"""A finished run is extended, by a flag or by its config.toml; what is asked of a run is never ignored in silence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from distributed_tools import SMALL, together, train
from safetensors.torch import load_file

from segmodel import train as command
from segmodel.common import cli
from segmodel.training import trainer
from segmodel.training.optimisation import poly_rate
from segmodel.training.run_folder import Progress, RunFolder

TINY = [*SMALL, "--precision", "float32", "--steps", "0", "--epochs", "3"]  # six steps


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train([*TINY, "--output", str(folder)]) == (0, "")
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def lines(folder: Path, kind: str) -> list[dict]:
    found = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def same(first: Path, second: Path) -> bool:
    ours, theirs = (load_file(folder / "last.safetensors") for folder in (first, second))
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_an_extended_run_goes_on_at_the_rate_of_a_run_of_that_length(finished, run, capsys):
    assert cli.run("train", command.main, ["--resume", str(run), "--epochs", "5"]) == 0
    text = capsys.readouterr().out
    assert f"{run}: extended from 6 to 10 steps; the rate goes on at 0.00877" in text
    assert RunFolder(run).config().train.epochs == 5
    card = json.loads((run / "last.json").read_text())
    assert (card["step"], card["total_steps"], card["extended_at"], card["finished"]) == (10, 10, 6, True)
    steps = lines(run, "train")
    assert [line["step"] for line in steps] == list(range(1, 11))
    assert [line["rate"] for line in steps[6:]] == [poly_rate(step, 10, base=0.02) for step in range(6, 10)]
    assert [line["step"] for line in lines(run, "final")] == [6, 10]
    assert lines(run, "train")[:6] == lines(finished, "train")
    assert not same(finished, run)
    assert (run / "report.html").read_text().count("(not finished)") == 0
    sessions = [json.loads(text) for text in (run / "sessions.jsonl").read_text().splitlines()]
    assert [session["step"] for session in sessions] == [0, 6]
    assert sessions[1]["command"] == f"python -m segmodel.train --resume {run} --epochs 5"
    assert card["seconds"] > json.loads((finished / "last.json").read_text())["seconds"] > 0


def stop_after(steps: int, arguments: list[str], monkeypatch) -> tuple[int, str]:
    """A training that is told to stop after so many steps."""
    original, count = trainer.Trainer.next_batch, 0

    def next_batch(self, batches, stop):
        nonlocal count
        count += 1
        stop.number = 15 if count > steps else stop.number
        return original(self, batches, stop)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "next_batch", next_batch)
        return train(arguments)


def test_an_extended_run_that_was_interrupted_resumes_to_the_last_bit(finished, run, tmp_path, monkeypatch):
    whole = Path(shutil.copytree(finished, tmp_path / "whole"))
    assert train(["--resume", str(whole), "--epochs", "5"]) == (0, "")
    assert stop_after(2, ["--resume", str(run), "--epochs", "5"], monkeypatch)[0] == 143
    assert json.loads((run / "last.json").read_text())["step"] == 8
    assert train(["--resume", str(run), "--epochs", "5"]) == (0, "")  # as torchrun would repeat it
    assert same(whole, run)


def test_what_had_joined_stays_in_an_extended_run():
    for share in (0.0, 0.5, 0.75):
        progress = Progress(10, step=6, extended_at=6)
        assert not progress.before(share)
    assert Progress(10, step=6).before(0.75)
    assert Progress(10, step=9, extended_at=6).before(1)  # never is never


def test_more_epochs_in_the_settings_extend_too_whatever_else_was_changed(finished, run, capsys):
    settings = run / "config.toml"
    settings.write_text(settings.read_text().replace("epochs = 3", "epochs = 4").replace("rate = 0.02", "rate = 0.01"))
    assert cli.run("train", command.main, ["--resume", str(run)]) == 0
    assert "extended from 6 to 8 steps" in capsys.readouterr().out
    assert lines(run, "train")[6]["rate"] == poly_rate(6, 8, base=0.01)


def test_a_finished_run_says_what_would_train_it_further(run, capsys):
    assert cli.run("train", command.main, ["--resume", str(run)]) == 0
    text = capsys.readouterr().out
    assert f"finished already, at step 6 (3 epochs); to train it further: --resume {run} --epochs N, N above 3" in text
    settings = run / "config.toml"
    settings.write_text(settings.read_text().replace("workers = 0", "workers = 1"))
    assert cli.run("train", command.main, ["--resume", str(run)]) == 0  # what changes no weight may change


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            ("rate = 0.02", "rate = 0.03"),
            [],
            "config.toml: train.rate: 0.02 or 0.03: the run is finished with",
        ),
        (("epochs = 3", "epochs = 2"), [], "config.toml: epochs: expected more than the run has, 3, got 2"),
        (None, ["--epochs", "3"], "--epochs: expected more than the run has, 3, got 3"),
        (None, ["--steps", "6"], "--steps: expected more than the run has, 6, got 6"),
        (None, ["--epochs", "many"], "--epochs: expected a whole number"),
        (None, ["--epochs", "0"], "epochs: expected at least 1, got 0"),
        (None, ["--epochs", "9", "--steps", "9"], "--resume: expected no other setting beside it, but --epochs or"),
        (None, ["--epochs", "9", "--rate", "1"], "--resume: expected no other setting beside it, but --epochs or"),
    ],
)
def test_what_a_finished_run_cannot_follow_is_an_error(finished, run, change, arguments, message):
    if change:
        settings = run / "config.toml"
        assert change[0] in settings.read_text()
        settings.write_text(settings.read_text().replace(*change))
    status, text = train(["--resume", str(run), *arguments])
    assert status == 2
    assert message in text
    assert same(finished, run)


def test_an_unfinished_run_says_where_it_goes_on_and_is_not_extended(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    assert stop_after(3, [*TINY, "--output", str(folder)], monkeypatch)[0] == 143
    status, text = train(["--resume", str(folder), "--epochs", "9"])
    assert status == 2
    assert f"--epochs: expected for a finished run, and {folder} is at step 3; first --resume {folder}" in text
    settings = folder / "config.toml"
    settings.write_text(settings.read_text().replace("rate = 0.02", "rate = 0.01"))
    assert cli.run("train", command.main, ["--resume", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"{folder}: goes on after step 3 of 6, epoch 2" in out
    assert "changed since the checkpoint, train.rate: 0.02 or 0.01" in out
    assert f"  python -m segmodel.predict {folder} PHOTOS" in out


def test_several_processes_extend_a_run_together(finished, run, tmp_path):
    alone = Path(shutil.copytree(finished, tmp_path / "alone"))
    assert train(["--resume", str(alone), "--epochs", "4"]) == (0, "")
    assert together(2, train, ["--resume", str(run), "--epochs", "4"]) == [(0, "")] * 2
    ours, theirs = (json.loads((folder / "last.json").read_text()) for folder in (alone, run))
    assert ours["step"] == theirs["step"] == 8
    first, second = (load_file(folder / "last.safetensors") for folder in (alone, run))
    # float32, two steps: sums in another order
    assert all(torch.allclose(value, second[name], rtol=1e-3, atol=1e-4) for name, value in first.items())
