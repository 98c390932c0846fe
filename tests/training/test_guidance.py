"""--hold-out: the guidance of a finished model is the best of some on pictures that the training has not seen."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segmodel import evaluate, train
from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.data import open_data
from segmodel.data.base import set_apart
from segmodel.model.config import ModelConfig
from segmodel.model.network import Network
from segmodel.model.store import read_checkpoint
from segmodel.model.untrained_crf import Refinement, UntrainedCRF, chosen_guidance
from segmodel.segmodel import SegModel
from segmodel.training import guidance
from segmodel.training.trainer import Trainer

TINY = [
    "--data", "scenes:train=12,val=2", "--depth", "18", "--width", "4", "--stem-width", "4", "--label-hidden", "4",
    "--batch-size", "4", "--crop", "64,64", "--epochs", "1", "--workers", "0", "--pictures", "1", "--precision",
    "float32", "--device", "cpu", "--hold-out", "3",
]  # fmt: skip


@given(st.integers(1, 40), st.integers(0, 50))
def test_what_is_set_apart_and_the_rest_are_the_whole(length, count):
    data = open_data(f"scenes:train={length},val=1", split="train")
    if count >= length:
        with pytest.raises(UserError, match=f"hold_out: expected less than the {length} pictures of .*, got {count}"):
            set_apart(data, count, flag="hold_out")
        return
    rest, apart = set_apart(data, count, flag="hold_out")
    assert (len(rest), len(apart)) == (length - count, count)
    kept = rest.indices if count else list(range(length))
    assert sorted([*kept, *apart.indices]) == list(range(length))
    assert kept == sorted(kept)
    assert (rest.classes, rest.sources()) == (data.classes, data.sources())


def network(mode: str, classes: int) -> Network:
    config = ModelConfig(depth=18, width=4, stem_width=4, label_hidden=4, rings=(), label_pool=3, guidance=mode)
    return Network(classes, config).eval()


@pytest.fixture
def held_out(monkeypatch):
    """Pictures, and scores of a network on them: the truth of every fourth pixel, as sure as the test says."""
    data = open_data("scenes:train=3,val=1", split="train")
    truth = {data[index].image.tobytes(): data[index].label for index in range(3)}
    sure = {"logit": 3.0}

    def scores(model, images, **_):
        label = truth[images[0].tobytes()]
        coarse = np.eye(len(data.classes), dtype=np.float32)[np.where(label == 255, 0, label)[1::4, 1::4]]
        return torch.from_numpy(sure["logit"] * coarse.transpose(2, 0, 1))[None].contiguous()

    monkeypatch.setattr(guidance, "coarse_scores", scores)
    return data, sure


def test_unsure_scores_of_pictures_with_clear_edges_get_an_untrained_crf(held_out):
    data, _ = held_out
    found = guidance.choose_guidance(network("inference", len(data.classes)), data)
    assert set(found.figures) == {"none", "from the scores", "tuned"}
    assert found.choice["way"] in ("from the scores", "tuned")
    assert found.figures[found.choice["way"]] > found.figures["none"] + 0.01
    assert found.choice["settings"].keys() == {"radius", "eps", "weight", "balance", "iterations"}
    assert found.images == 3
    assert str(found).startswith("guidance, on 3 pictures held out: mIoU none ")
    again = guidance.Found(json.loads(json.dumps(found.choice)), found.figures, 3)
    assert isinstance(chosen_guidance("x", again.choice), UntrainedCRF)


def test_scores_that_nothing_can_change_get_none(held_out):
    data, sure = held_out
    sure["logit"] = 1e4
    found = guidance.choose_guidance(network("inference", len(data.classes)), data)
    assert found.choice == {"way": "none"}


def test_a_trained_crf_that_is_better_than_all_untrained_ones_stays(held_out, monkeypatch):
    data, _ = held_out
    model = network("joint", len(data.classes))
    # whatever is tried instead is worse than none
    tuned = guidance.tune_refinement([(np.zeros((12, 32, 32), np.float32), data[0].image, data[0].label)],
                                     start=Refinement(stride=4), values={})  # fmt: skip
    worse = replace(tuned, before=0.0, started=0.0, after=0.01)
    monkeypatch.setattr(guidance, "tune_refinement", lambda *_, **__: worse)
    found = guidance.choose_guidance(model, data)
    assert found.choice == {"way": "trained"}
    assert set(found.figures) == {"none", "trained", "from the scores", "tuned"}


def test_the_chosen_guidance_is_the_models_own_at_inference_alone():
    model, image = network("joint", 3), 255 * torch.rand(1, 3, 40, 48)
    plain, trained = model(image, guidance=False), model(image)
    model.head.chosen = chosen_guidance("x", {"way": "none"})
    assert torch.equal(model(image), plain)
    assert torch.equal(model(image, guidance=True), trained)
    crf = model.head.chosen = chosen_guidance("x", {"way": "tuned", "settings": {"radius": 2, "weight": 9.0}})
    assert crf == UntrainedCRF(Refinement(radius=2, weight=9.0))
    assert not torch.equal(model(image), trained)
    assert torch.equal(model(image), model(image, guidance=True))
    assert torch.equal(model(image, guidance=False), plain)
    model.train()
    assert model.head.guided(None) is model.head.crf
    model.eval()
    model.head.chosen = chosen_guidance("x", {"way": "trained"})
    assert torch.equal(model(image), trained)


@pytest.mark.parametrize("mode", ["inference", "off"])
def test_a_training_holds_out_chooses_and_keeps_what_it_chose(tmp_path, monkeypatch, capsys, mode):
    seen = set()
    original = Trainer.train_on
    monkeypatch.setattr(
        Trainer, "train_on", lambda self, batch, rate: seen.update(batch.names) or original(self, batch, rate)
    )
    folder = tmp_path / "run"
    assert cli.run("train", train.main, [*TINY, "--guidance", mode, "--output", str(folder)]) == 0
    out = capsys.readouterr().out
    _, apart = set_apart(open_data("scenes:train=12,val=2", split="train"), 3, flag="hold_out")
    assert len(seen) == 8
    assert not seen & {apart[index].name for index in range(3)}
    card, _ = read_checkpoint(folder / "last.safetensors")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    said = [line for line in lines if line["kind"] == "guidance"]
    if mode == "off":
        assert card["guidance"] is None
        assert not said
        return
    assert "guidance, on 3 pictures held out: mIoU none " in out
    assert card["guidance"] == said[0]["choice"]
    model = SegModel.load(folder)
    assert model.head.chosen == chosen_guidance("x", card["guidance"])
    model.save_pretrained(tmp_path / "given")
    assert SegModel.load(tmp_path / "given").head.chosen == model.head.chosen
    final = next(line for line in lines if line["kind"] == "final")
    own = "guidance_off" if card["guidance"]["way"] == "none" else "guidance_on"
    figures = tmp_path / "figures.json"
    assert cli.run("evaluate", evaluate.main, [str(folder), "--json", str(figures), "--device", "cpu"]) == 0
    assert json.loads(figures.read_text())["results"]["model"]["miou"] == pytest.approx(final[own]["miou"], abs=1e-9)


def test_too_many_held_out_are_named(tmp_path, capsys):
    assert cli.run("train", train.main, [*TINY, "--hold-out", "12", "--output", str(tmp_path / "run")]) == 2
    assert "hold_out: expected less than the 12 pictures of " in capsys.readouterr().err
