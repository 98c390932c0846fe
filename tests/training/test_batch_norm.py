"""The command that recomputes batch-norm statistics: it repeats what the training did at its end, and loses nothing."""

import torch
from distributed_tools import SMALL, train
from safetensors.torch import load_file

from segmodel import batch_norm
from segmodel.common import cli
from segmodel.model.store import read_checkpoint, save_checkpoint
from segmodel.segmodel import SegModel


def test_statistics_of_a_finished_run(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = [*SMALL, "--steps", "2", "--batch-norm-epochs", "1", "--precision", "float32", "--seed", "3"]
    assert train([*arguments, "--output", str(folder)]) == (0, "")
    source, new = folder / "last.safetensors", folder / "last_batch_norm.safetensors"
    content = source.read_bytes()
    assert cli.run("batch_norm", batch_norm.main, [str(source)]) == 0
    assert f"checkpoint: {new}" in capsys.readouterr().out
    assert source.read_bytes() == content
    old, got = load_file(source), load_file(new)
    for name, value in got.items():  # the training's own end did the same from the same weights and samples
        assert torch.equal(value, old[name]), name
    card, _ = read_checkpoint(new)
    assert card["scores"] == read_checkpoint(source)[0]["scores"]
    three = folder / "three.safetensors"
    assert cli.run("batch_norm", batch_norm.main, [str(source), "--epochs", "3", "--output", str(three)]) == 0
    more = load_file(three)
    assert any(not torch.equal(more[name], old[name]) for name in more if "running" in name)
    assert all(torch.equal(more[name], old[name]) for name in more if "running" not in name and "batches" not in name)
    for case, message in (
        ([str(source)], "exists already"),
        ([str(source), "--output", str(tmp_path / "no" / "x.safetensors")], "in an existing folder"),
        ([str(source), "--epochs", "0"], "--epochs: expected more than 0"),
        ([str(tmp_path)], "expected a run folder"),
    ):
        assert cli.run("batch_norm", batch_norm.main, case) == 2
        assert message in capsys.readouterr().err


def test_card_and_weights_are_of_one_checkpoint_though_a_training_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    assert train([*SMALL, "--steps", "1", "--output", str(folder)]) == (0, "")
    file, expected = folder / "best.safetensors", SegModel.load(folder / "best.safetensors")

    def read(*given, **options):
        found = read_checkpoint(*given, **options)
        newer = SegModel.load(file)
        torch.nn.init.zeros_(newer.backbone.conv1.weight)
        save_checkpoint(file, newer, found[0])
        return found

    monkeypatch.setattr(batch_norm, "read_checkpoint", read)
    assert cli.run("batch_norm", batch_norm.main, [str(folder)]) == 0
    assert not SegModel.load(file).backbone.conv1.weight.any()
    found = SegModel.load(folder / "best_batch_norm.safetensors")
    assert torch.equal(found.backbone.conv1.weight, expected.backbone.conv1.weight)


def test_frozen_batch_norms_keep_the_statistics_of_their_weights(tmp_path, capsys):
    paper, peer = tmp_path / "paper", tmp_path / "peer"
    arguments = [*SMALL, "--steps", "2", "--frozen-batch-norm"]
    assert train([*arguments, "--output", str(paper)]) == (0, "")
    assert train([*arguments, "--output", str(peer), "--head", "aspp", "--patch-size", "1"]) == (0, "")
    for folder in (paper, peer):
        tensors = load_file(folder / "last.safetensors")
        statistics = {name: value for name, value in tensors.items() if name.endswith(("running_mean", "running_var"))}
        assert {name.partition(".")[0] for name in statistics} == (
            {"backbone", "head"} if folder == peer else {"backbone"}
        )
        for name, value in statistics.items():
            fresh = torch.full_like(value, name.endswith("var"))
            assert torch.equal(value, fresh) == name.startswith("backbone."), name
        assert any(
            not torch.equal(value, torch.ones_like(value))
            for name, value in tensors.items()
            if name.startswith("backbone.") and "bn" in name and name.endswith("weight")
        )  # they are trained
    assert cli.run("batch_norm", batch_norm.main, [str(paper)]) == 2
    assert "expected batch norms with statistics of their own, got frozen ones alone" in capsys.readouterr().err
    assert cli.run("batch_norm", batch_norm.main, [str(peer)]) == 0
    new, old = load_file(peer / "best_batch_norm.safetensors"), load_file(peer / "best.safetensors")
    assert all(torch.equal(new[name], old[name]) for name in new if name.startswith("backbone."))
