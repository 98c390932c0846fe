"""``model.segment``: arrays, PIL images, paths, lists and folders give the same labels."""

import numpy as np
import pytest
import torch
from inference_tools import picture
from PIL import Image

from segmodel import ModelConfig, SegModel, refine
from segmodel.inference.views import InferenceConfig, coarse_scores, guide, label_maps
from segmodel.model.untrained_crf import Refinement, crf_from_scores
from segmodel.model.upsampling import enlarge


@pytest.fixture(scope="module")
def model() -> SegModel:
    torch.manual_seed(0)
    config = ModelConfig(depth=18, width=4, stem_width=4, rings=((1, 1),), label_hidden=4, label_pool=3)
    return SegModel(5, config).eval()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)


def test_every_form_of_a_picture_gives_the_same_labels(model, image, tmp_path):
    expected = label_maps(model, image, dtype=torch.bfloat16)["model"]
    for name in ("b.png", "a.BMP"):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    got = model.segment(image)
    assert got.dtype == np.uint8
    assert got.shape == (21, 34)
    assert (got == expected).mean() > 0.9  # where the processor has no fast bfloat16, segment computes in float32
    forms = [Image.fromarray(image), tmp_path / "b.png", str(tmp_path / "a.BMP")]
    for form in forms:
        np.testing.assert_array_equal(model.segment(form), got)
    for labels in model.segment(forms):
        np.testing.assert_array_equal(labels, got)
    folder = model.segment(tmp_path)
    assert list(folder) == [tmp_path / "a.BMP", tmp_path / "b.png"]
    np.testing.assert_array_equal(folder[tmp_path / "b.png"], got)


def test_guidance_auto_is_refine_on_the_models_own_scores(model):
    batch = np.stack([picture(64, 96, seed=seed) for seed in (0, 1)])
    with torch.inference_mode():
        coarse = coarse_scores(model, batch, config=InferenceConfig())
        coarse[1] *= 300  # surer scores, other settings
        g = model.head.guidance_stride
        own = [Refinement().resolved(part[None], part.shape[1:]) for part in coarse]
        assert own[0].weight != own[1].weight
        found = crf_from_scores(coarse, guide(batch, g, coarse.device))
    for image, scores, fine in zip(batch, coarse, enlarge(found, g), strict=True):
        expected = refine(scores, torch.from_numpy(image).permute(2, 0, 1), stride=g)
        torch.testing.assert_close(fine, expected, rtol=0, atol=1e-4)
    labels = label_maps(model, batch[0], guidance={"it": crf_from_scores})["it"]
    assert (labels != model.segment(batch[0], guidance=False)).any()
    assert (labels == model.segment(batch[0], guidance="auto")).mean() > 0.9


def test_grey_pictures_modes_and_training(model, image):
    grey = image[..., 0]
    np.testing.assert_array_equal(model.segment(grey), model.segment(Image.fromarray(grey)))
    assert (model.segment(image, guidance=False) != model.segment(image, guidance=True)).any()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.backbone.eval()  # frozen by its owner
    model.segment(image)
    assert model.training
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (np.zeros((4, 5, 3)), r"image: expected uint8 \(H, W, 3\).*got float64"),
        (np.zeros((3, 4, 5), np.uint8), r"got uint8 \(3, 4, 5\)"),
        (np.zeros((0, 5, 3), np.uint8), "image: expected"),
        (torch.zeros(3, 4, 5), "expected an array, a PIL image or a path, got Tensor"),
        ("absent.png", "absent.png: no such file"),
        (Image.fromarray(np.zeros((4, 5), np.uint16)), "image: expected 8 bits a channel, got mode I;16"),
        (Image.fromarray(np.zeros((4, 5), np.float32)), "image: expected 8 bits a channel, got mode F"),
    ],
)
def test_what_is_no_picture_is_named(model, form, message):
    with pytest.raises(ValueError, match=message):
        model.segment(form)


def test_a_folder_without_pictures_is_an_error(model, tmp_path):
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves beside a file")
    with pytest.raises(ValueError, match="no picture in this folder"):
        model.segment(tmp_path)
