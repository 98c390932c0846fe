"""Refinement of any model's scores: the paper's way exactly, array conventions, masks, errors, the command."""

import json
import pickle
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

import segmodel
from segmodel.common import cli
from segmodel.data import open_data
from segmodel.inference.refine import refine, refine_mask
from segmodel.inference.refinement import Refinement
from segmodel.kernels import guidance_crf
from segmodel.model.upsampling import area_average, enlarge
from segmodel.refine import main


@pytest.fixture(scope="module")
def scene():
    return open_data("scenes", split="val")[3]


PAPER = asdict(Refinement.paper())
OLD = {"stride": 4, "radius": 3, "eps": 1.0, "weight": 2.0, "iterations": 3}
"""Settings as files held them when there was one window."""


def coarse_scores(label: np.ndarray, stride: int) -> torch.Tensor:
    """(C, h, w) logits as a coarse model would give them: shares of the classes in each block."""
    one_hot = torch.from_numpy(np.eye(12, dtype=np.float32)[np.where(label == 255, 0, label)]).permute(2, 0, 1)
    return (area_average(one_hot[None], stride)[0] + 0.02).log()


def test_scores_at_a_quarter_are_refined_as_the_model_does_it():
    scores, image = torch.randn(2, 5, 9, 7), 255 * torch.rand(2, 3, 33, 28)
    expected = enlarge(guidance_crf(scores, area_average(image, 4)), 4)[:, :, :33, :28]
    torch.testing.assert_close(refine(scores, image, **PAPER), expected, rtol=0, atol=0)


def test_full_size_runs_on_the_enlarged_scores():
    scores, image = torch.randn(1, 5, 4, 5), 255 * torch.rand(1, 3, 15, 17)
    fine = functional.interpolate(scores, (15, 17), mode="bilinear", align_corners=False)
    expected = guidance_crf(fine, image, radius=2, eps=5.0, weight=3.0, iterations=2)
    got = refine(scores, image, stride=1, radius=2, narrow=2, eps=5.0, weight=3.0, iterations=2)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(refine(scores, image, weight=0.0, stride=2), fine, rtol=0, atol=1e-5)  # a sum's rounding


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 20), width=st.integers(1, 20), stride=st.integers(1, 5), batch=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64, np.float16]),
)  # fmt: skip
def test_arrays_tensors_and_single_images_agree(height, width, stride, batch, dtype):
    numbers = np.random.default_rng(height * 100 + width)
    scores = numbers.normal(size=(batch, 3, -(-height // 3), -(-width // 2))).astype(dtype)
    image = numbers.integers(0, 256, (batch, height, width, 3), np.uint8)
    refined = refine(scores, image, stride=stride)
    assert isinstance(refined, np.ndarray)
    assert refined.dtype == dtype
    assert refined.shape == (batch, 3, height, width)
    tensor = refine(torch.from_numpy(scores), torch.from_numpy(image).permute(0, 3, 1, 2), stride=stride)
    np.testing.assert_array_equal(refined, tensor.numpy())
    # blocks of labels differ with the batch's memory; half precision rounds once at the end
    tolerance = {np.float16: 4e-3, np.float32: 1e-5, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(refined[0], refine(scores[0], Image.fromarray(image[0]), stride=stride), tolerance,
                               10 * tolerance)  # fmt: skip


@pytest.mark.parametrize(("stride", "gain"), [(1, 0.01), (4, 0.001)])
def test_coarse_scores_of_a_scene_get_better(scene, stride, gain):
    valid = scene.label != 255
    scores = coarse_scores(scene.label, 8)
    plain = functional.interpolate(scores[None], scene.label.shape, mode="bilinear")[0].argmax(0).numpy()
    best = refine(scores.numpy(), scene.image, **{**PAPER, "stride": stride, "eps": 30.0}).argmax(0)
    before, after = ((labels == scene.label)[valid].mean() for labels in (plain, best))
    assert after > before + gain


def test_a_trained_crf_brings_its_own_settings():
    scores, image = torch.randn(1, 4, 6, 6).double(), torch.rand(1, 3, 24, 24).double()
    crf = segmodel.GuidanceCRF(4, radius=2, weight=1.0, image_range=(0, 1)).double()
    got = refine(scores, image, crf=crf, image_range=(0, 1))
    torch.testing.assert_close(
        got, refine(scores, 255 * image, **{**PAPER, "radius": 2, "narrow": 2, "weight": 1.0}), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(got, refine(scores, 255 * image, crf=crf), rtol=0, atol=1e-9)  # a range of its own
    with pytest.raises(ValueError, match=r"radius: expected one of stride beside a crf"):
        refine(scores, image, crf=crf, radius=3)
    with pytest.raises(ValueError, match=r"crf: expected one of 4 classes, as the scores have, got 3"):
        refine(scores, image, crf=segmodel.GuidanceCRF(3), image_range=(0, 1))


def test_an_image_as_high_as_there_are_classes_does_not_look_like_classes_last():
    assert refine(np.zeros((3, 1, 1), np.float32), np.zeros((3, 1, 3), np.uint8)).shape == (3, 3, 1)


def test_gradients_reach_scores_and_crf():
    scores, crf = torch.randn(1, 4, 6, 6, requires_grad=True), segmodel.GuidanceCRF(4)
    refine(scores, 255 * torch.rand(1, 3, 24, 24), crf=crf).square().sum().backward()
    assert min(tensor.grad.abs().max() for tensor in (scores, crf.weight, crf.compatibility)) > 1e-2


def test_scores_larger_than_the_image_are_averaged_down():
    scores, image = torch.randn(1, 2, 1, 1).expand(1, 2, 30, 26), 255 * torch.rand(1, 3, 13, 11)
    expected = refine(torch.as_tensor(scores[:, :, :13, :11]), image)
    torch.testing.assert_close(refine(scores, image), expected, rtol=1e-5, atol=1e-5)


def test_masks_keep_their_kind(scene):
    sky = scene.label == 0
    small = sky[::4, ::4]
    refined = refine_mask(small, scene.image)
    assert refined.dtype == np.bool_
    assert refined.shape == sky.shape
    rough = np.kron(small, np.ones((4, 4), bool))
    assert (refined == sky).mean() > (rough == sky).mean()
    np.testing.assert_array_equal(
        refine_mask(255 * small.astype(np.uint8), scene.image), 255 * refined.astype(np.uint8)
    )
    np.testing.assert_array_equal(segmodel.refine(small, scene.image), refined)
    np.testing.assert_array_equal(refine_mask(small.astype(np.float32), scene.image), refined.astype(np.float32))
    soft = refine_mask(small[None, None] * np.float32(0.96) + np.float32(0.02), scene.image[None])
    assert soft.shape == (1, 1, 128, 128)
    assert 0 <= soft.min() < 0.1 < 0.9 < soft.max() <= 1
    tensor = refine_mask(torch.from_numpy(small)[None].long(), torch.from_numpy(scene.image).permute(2, 0, 1))
    assert tensor.dtype == torch.int64
    np.testing.assert_array_equal(tensor[0].bool().numpy(), refined)


SCORES, IMAGE = np.zeros((3, 4, 4), np.float32), np.full((8, 8, 3), 9, np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: refine([1.0], IMAGE), "scores: expected an array or a tensor of numbers, got list"),
        (lambda: refine(SCORES.astype(int), IMAGE), r"scores: expected floating point .*, got int64 \(3, 4, 4\)"),
        (lambda: refine(SCORES[:1], IMAGE), "expected 2 classes or more, got 1; refine_mask"),
        (lambda: refine(np.zeros((8, 6, 3), np.float32), IMAGE[:, :6]), "class first, got float32 .*class last"),
        (lambda: refine(SCORES.astype(np.longdouble), IMAGE), "scores: expected an array or a tensor of numbers"),
        (lambda: refine(SCORES, 300 + IMAGE.astype(np.uint16)), r"image_range \(0, 255\), got 309"),
        (lambda: refine(SCORES, IMAGE.transpose(2, 0, 1)), r"image: expected an array \(H, W\), .*, got uint8"),
        (lambda: refine(torch.zeros(3, 4, 4), torch.zeros(8, 8, 3)), r"image: expected a tensor \(3, H, W\)"),
        (lambda: refine(SCORES[None].repeat(2, 0), IMAGE), "image: expected as many as scores, 2, got 1"),
        (lambda: refine(SCORES, IMAGE / 255), r"got at most 0.0352941; is it 0..1\?"),
        (lambda: refine(SCORES, IMAGE - 11.0), r"image: expected colours in image_range \(0, 255\), got -2 to -2"),
        (lambda: refine(SCORES + np.nan, IMAGE), "scores: expected finite numbers"),
        (lambda: refine(np.eye(3, dtype=np.float32)[None, :, :].repeat(3, 0) * 0 + [[[0.1]], [[0.3]], [[0.6]]], IMAGE),
         "scores: expected logits, got probabilities"),
        (lambda: refine(SCORES, IMAGE, radius=1.5), "radius: expected a whole number, got 1.5"),
        (lambda: refine(SCORES, IMAGE, eps=0), "eps: expected more than 0"),
        (lambda: refine(SCORES, IMAGE, stride=0), "stride: expected at least 1"),
        (lambda: refine(SCORES, IMAGE, sigma=1), "sigma: expected one of stride, radius, narrow, eps, weight"),
        (lambda: refine_mask(IMAGE[..., 0], IMAGE), "mask: expected probabilities, or 0 and 1"),
        (lambda: refine_mask(SCORES[0] - 1, IMAGE), "mask: expected probabilities"),
        (lambda: refine_mask(SCORES[0], IMAGE, confidence=1), "confidence: expected more than 0.5"),
        (lambda: refine_mask(SCORES[None], IMAGE), "mask: expected .*, got float32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_command_does_not_hide_the_function():
    assert main.__module__ == "segmodel.refine"
    assert segmodel.refine is refine
    assert pickle.loads(pickle.dumps(segmodel.refine)) is refine  # a loader's workers get it so


def test_pictures_of_more_bits_are_refused_and_masks_of_more_bits_taken():
    with pytest.raises(ValueError, match="image: expected 8 bits a channel, got mode I;16"):
        segmodel.refine(SCORES, Image.fromarray(np.zeros((8, 8), np.uint16)))
    mask = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint16)
    refined = refine_mask(mask, torch.zeros(3, 8, 8))
    assert refined.dtype == torch.uint16
    assert np.array_equal(refined.numpy(), refine_mask(mask.numpy(), np.zeros((8, 8, 3))))


def run(*arguments: object) -> int:
    return cli.run("refine", main, [str(argument) for argument in arguments])


def test_the_command(tmp_path, scene, capsys):
    Image.fromarray(scene.image).save(tmp_path / "image.png")
    scores = coarse_scores(scene.label, 8).numpy()
    np.save(tmp_path / "scores.npy", scores)
    Image.fromarray(255 * (scene.label == 0).astype(np.uint8)).save(tmp_path / "mask.png")
    (tmp_path / "tuned.json").write_text(json.dumps({"settings": {**OLD, "radius": 2, "eps": 9}}))
    given = (tmp_path / "image.png", tmp_path / "scores.npy", "--settings", tmp_path / "tuned.json", "--eps", 4)
    assert run(*given, "--output", tmp_path / "labels.png") == 0
    assert "radius 2, narrow 2, eps 4.0, weight 2.0" in capsys.readouterr().out
    assert run(*given, "--output", tmp_path / "refined.npy") == 0
    expected = refine(scores, scene.image, **{**OLD, "radius": 2, "narrow": 2, "eps": 4.0})
    np.testing.assert_array_equal(np.load(tmp_path / "refined.npy"), expected)
    with Image.open(tmp_path / "labels.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected.argmax(0))
    np.save(tmp_path / "batch.npy", scores[None])  # as models give them; and an ending as some systems write it
    (tmp_path / "batch.npy").replace(tmp_path / "batch.NPY")
    assert run(given[0], tmp_path / "batch.NPY", *given[2:], "--output", tmp_path / "batch.PNG") == 0
    assert (tmp_path / "batch.PNG").read_bytes() == (tmp_path / "labels.png").read_bytes()
    assert run(*given, "--output", tmp_path / "refined.NPY") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "refined.NPY"), expected)
    np.save(tmp_path / "many.npy", np.zeros((300, 4, 4), np.float32))
    assert run(given[0], tmp_path / "many.npy", "--output", tmp_path / "many.png") == 2
    assert "expected (C, h, w) with at most 255 classes for a PNG, got (300, 4, 4)" in capsys.readouterr().err
    assert run(*given, "--output", tmp_path / "labels.png") == 2
    assert "exists already (--overwrite replaces it)" in capsys.readouterr().err
    assert run(tmp_path / "image.png", tmp_path / "mask.png", "--output", tmp_path / "new.png", "--stride", 1) == 0
    with Image.open(tmp_path / "new.png") as picture:
        assert set(np.unique(np.asarray(picture))) == {0, 255}
    for arguments, message in (
        ((tmp_path / "image.png", tmp_path / "labels.png"), "expected a grey mask, got colours"),
        ((tmp_path / "image.png", tmp_path / "no.npy"), "cannot be read as an .npy file"),
        ((*given[:2], "--settings", tmp_path / "mask.png"), "expected a file of segmodel.tune"),
        ((*given[:2], "--radius", -1), "radius: expected at least 0"),
    ):
        assert run(*arguments, "--output", tmp_path / "other.png") == 2
        assert message in capsys.readouterr().err
    assert run(*given, "--output", tmp_path / "no" / "labels.png") == 2
    assert not list(tmp_path.glob("*.partial"))


def test_the_papers_settings():
    assert Refinement.paper() == Refinement(stride=4, radius=3, narrow=3, eps=1.0, weight=2.0, iterations=3)
