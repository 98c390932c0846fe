"""Model folders: an exact round trip, a card that people and programs read, and clear errors."""

import json
import random
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from segmodel import ModelConfig, SegModel
from segmodel.common.errors import Note, UserError
from segmodel.model.store import COPY as CARD
from segmodel.model.store import SHARED as WEIGHTS
from segmodel.model.store import read_checkpoint, save_checkpoint

SMALL = ModelConfig(depth=18, width=4, stem_width=4, rings=((1, 1),), label_hidden=4, label_pool=3)


@pytest.fixture
def model() -> SegModel:
    torch.manual_seed(0)
    model = SegModel(3, SMALL)
    model.classes, model.palette = ("sky", "sea", "sand"), np.arange(9, dtype=np.uint8).reshape(3, 3)
    model.card = {"data": "scenes", "scores": {"miou": 0.5}}
    return model.eval()


def test_the_round_trip_is_exact(model, tmp_path):
    model.save_pretrained(tmp_path / "new" / "folder", licence="CC-BY-4.0", training_data="drawn scenes")
    folder = tmp_path / "new" / "folder"
    assert sorted(file.name for file in folder.iterdir()) == sorted([CARD, WEIGHTS])
    loaded = SegModel.from_pretrained(folder)
    assert loaded.config == model.config
    assert loaded.classes == model.classes
    np.testing.assert_array_equal(loaded.palette, model.palette)
    assert loaded.card == {**model.card, "licence": "CC-BY-4.0", "training_data": "drawn scenes"}
    state, own = loaded.state_dict(), model.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) for name in own)
    image = 255 * torch.rand(1, 3, 20, 30)
    assert torch.equal(loaded(image), model(image))
    loaded.save_pretrained(tmp_path / "again")
    for name in (CARD, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_card_says_what_others_need(model, tmp_path):
    model.save_pretrained(tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    assert card["classes"] == ["sky", "sea", "sand"]
    assert card["palette"][2] == [6, 7, 8]
    assert card["input"]["channels"] == "RGB"
    assert card["input"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert card["input"]["std"] == pytest.approx([58.395, 57.12, 57.375])
    assert card["model"]["depth"] == 18
    assert card["scores"] == {"miou": 0.5}
    assert card["versions"]["torch"] == torch.__version__
    with safe_open(tmp_path / WEIGHTS, "np") as file:  # others read the weights without this package
        assert "backbone.conv1.weight" in file.keys()  # noqa: SIM118
    assert SegModel.load(tmp_path).classes == model.classes  # the commands take the folder too


@pytest.mark.parametrize("broken", [WEIGHTS, CARD])
def test_missing_and_broken_files_are_named(model, tmp_path, broken):
    with pytest.raises(ValueError, match="expected a run folder or a checkpoint file, found none in it"):
        SegModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    content = (tmp_path / broken).read_bytes()
    (tmp_path / broken).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{broken}: not a readable"):
        SegModel.from_pretrained(tmp_path)


def test_the_weights_file_alone_is_the_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / CARD).unlink()
    assert SegModel.load(tmp_path).card == SegModel.load(tmp_path / WEIGHTS).card == model.card
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="found none in it"):
        SegModel.from_pretrained(tmp_path)


def test_a_card_that_was_changed_is_an_error(model, tmp_path):
    model.save_pretrained(tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    for changed in ({**card, "classes": ["a", "b", "c"]}, [], {**card, "more": 1}):
        (tmp_path / CARD).write_text(json.dumps(changed))
        for load in (SegModel.from_pretrained, SegModel.load):
            with pytest.raises(ValueError, match=r"differs from the card in model.safetensors \("):
                load(tmp_path)


def test_a_model_without_classes_and_unknown_names_are_errors(model, tmp_path):
    with pytest.raises(ValueError, match="expected those of 2 classes, got 0 and 0"):
        SegModel(2, SMALL).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="author: expected one of data, scores, licence"):
        model.save_pretrained(tmp_path, author="me")
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_loaded_again_is_not_written(model, tmp_path):
    model.save_pretrained(tmp_path)
    before = (tmp_path / CARD).read_bytes()
    for about, message in (({"data": ["voc", "coco"]}, "card: data: expected str"), ({"step": 12e3}, "card: step: ex")):
        with pytest.raises(ValueError, match=message):
            model.save_pretrained(tmp_path, **about)
    palette = model.palette
    for wrong in (palette / 255, palette.astype(int) + 300):
        model.palette = wrong
        with pytest.raises(ValueError, match=r"palette: expected 3 x 3 whole numbers of 0..255, got \[\["):
            model.save_pretrained(tmp_path)
    model.palette, model.classes = palette, (0, 1, 2)
    with pytest.raises(ValueError, match="expected a list of class names"):
        model.save_pretrained(tmp_path)
    model.classes = ("sky", "sea", "sand")
    model.head.crf.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"head\.crf\.weight: expected finite values"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / CARD).read_bytes() == before


def damage(file: Path) -> str:
    """How reading a checkpoint that has one wrong bit ends."""
    with warnings.catch_warnings(action="error", category=Note):
        try:
            read_checkpoint(file)
        except (UserError, Note) as error:
            return str(error)
    return "read"


def test_every_flipped_bit_of_a_checkpoint_is_noticed(model, tmp_path):
    file, rng = tmp_path / "last.safetensors", random.Random(0)
    save_checkpoint(file, model, {"model": asdict(SMALL), "classes": list(model.classes)})
    assert damage(file) == "read"
    content = file.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    places = [*rng.sample(range(length), 300), *(rng.randrange(length, len(content)) for _ in range(100))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        text = damage(file)
        expected = ["damaged: expected the checksum"]
        if place < length:  # of the header: it may be none any more, or lack the checksum's name
            expected += ["not a readable checkpoint", "checkpoint of format", "has no checksum"]
        assert any(words in text for words in expected), (place, text)


def test_a_file_of_a_former_version_is_read_with_a_note(model, tmp_path):
    file = tmp_path / "last.safetensors"
    save_checkpoint(file, model, {"model": asdict(SMALL)})
    with safe_open(file, framework="pt") as opened:
        card = json.loads(opened.metadata()["segmodel"])
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert len(card.pop("sha256")) == 64
    save_file(weights, file, {"segmodel": json.dumps(card)})
    with pytest.warns(Note, match=r"last.safetensors: has no checksum, as a file of a former version"):
        _, tensors = read_checkpoint(file)
    assert tensors.keys() == weights.keys()
