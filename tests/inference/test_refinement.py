"""Refinement of any model's scores: the paper's way exactly, array conventions, masks, errors, the command."""

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
from segmodel.data import open_data
from segmodel.inference.refine import refine, refine_mask
from segmodel.kernels import guidance_crf
from segmodel.model.untrained_crf import Refinement
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
    got = refine(scores, image, stride=1, radius=2, eps=5.0, weight=3.0, balance=0.0, iterations=2)
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
    refined = refine(scores, image, stride=stride, layout="CHW")
    assert isinstance(refined, np.ndarray)
    assert refined.dtype == dtype
    assert refined.shape == (batch, 3, height, width)
    tensor = refine(torch.from_numpy(scores), torch.from_numpy(image).permute(0, 3, 1, 2), stride=stride, layout="CHW")
    np.testing.assert_array_equal(refined, tensor.numpy())
    # blocks of labels differ with the batch's memory; half precision rounds once at the end
    tolerance = {np.float16: 4e-3, np.float32: 1e-5, np.float64: 1e-12}[dtype]
    alone = refine(scores[0], Image.fromarray(image[0]), stride=stride, layout="CHW")
    np.testing.assert_allclose(refined[0], alone, tolerance, 10 * tolerance)


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
        got, refine(scores, 255 * image, **{**PAPER, "radius": 2, "weight": 1.0}), rtol=0, atol=1e-9
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


def test_many_masks_of_one_picture_are_refined_each_for_itself(scene):
    masks = np.stack([scene.label[::4, ::4] == value for value in (*range(9), *range(9))])  # more than in one pass
    refined = refine_mask(masks, scene.image)
    assert refined.shape == (18, *scene.label.shape)
    for mask, got in zip(masks, refined, strict=True):
        np.testing.assert_array_equal(got, refine_mask(mask, scene.image))
    crf = segmodel.GuidanceCRF(2)
    np.testing.assert_array_equal(refine_mask(masks[:2], scene.image, crf=crf)[1],
                                  refine_mask(masks[1], scene.image, crf=crf))  # fmt: skip
    with pytest.raises(ValueError, match="image: expected one, or as many as masks, 18, got 2"):
        refine_mask(masks, np.stack([scene.image] * 2))


def test_logits_of_a_mask_stay_logits(scene):
    logits = np.float32(8) * ((scene.label[::4, ::4] == 0) - np.float32(0.4))
    two = np.stack([-logits / 2, logits / 2])
    expected = refine(two, scene.image)
    refined = refine_mask(logits, scene.image, logits=True)
    np.testing.assert_allclose(refined, expected[1] - expected[0], rtol=1e-5, atol=1e-5)
    assert refined.min() < -1 < 1 < refined.max()
    np.testing.assert_array_equal(refine_mask(logits[None, None], scene.image, logits=True)[0, 0], refined)
    shifted = torch.from_numpy(logits).requires_grad_()
    refine_mask(shifted, torch.from_numpy(scene.image).permute(2, 0, 1), logits=True).sum().backward()
    assert shifted.grad.abs().max() > 0.1


def test_masks_as_pictures_and_paths(tmp_path, scene):
    mask = scene.label == 0
    expected = refine_mask(mask, scene.image)
    Image.fromarray(255 * mask.astype(np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(scene.image).save(tmp_path / "image.png")
    for kind in (Image.fromarray(mask), Image.fromarray(255 * mask.astype(np.uint8)), tmp_path / "mask.png"):
        refined = refine(kind, str(tmp_path / "image.png"))
        assert refined.mode == (kind.mode if isinstance(kind, Image.Image) else "L")
        np.testing.assert_array_equal(np.array(refined) > 0, expected)


SCORES, IMAGE = np.zeros((3, 4, 4), np.float32), np.full((8, 8, 3), 9, np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: refine([1.0], IMAGE), "image: expected a list of 1, one for each in the first list, got uint8"),
        (lambda: refine(SCORES.astype(int), IMAGE), r"scores: expected floating point .*, got int64 \(3, 4, 4\)"),
        (lambda: refine(SCORES[:1], IMAGE), "expected 2 classes or more, got 1; refine_mask"),
        (lambda: refine(np.zeros((8, 6, 3), np.float32), IMAGE[:, :6]),
         r"got float32 \(8, 6, 3\), which looks like \(h, w, C\); give layout=\"HWC\""),
        (lambda: refine(SCORES.astype(np.longdouble), IMAGE), "scores: expected an array or a tensor of numbers"),
        (lambda: refine(SCORES, 300 + IMAGE.astype(np.uint16)), "expected image_range=.* for uint16, got none"),
        (lambda: refine(SCORES, IMAGE.transpose(2, 0, 1)), "bands that can be told from rows, got uint8"),
        (lambda: refine(torch.zeros(3, 4, 4), torch.zeros(8, 8, 3)), "expected bands that can be told from rows"),
        (lambda: refine(SCORES[None].repeat(2, 0), IMAGE), "image: expected as many as scores, 2, got 1"),
        (lambda: refine(SCORES, IMAGE / 255), r"got at most 0.0352941; is it 0..1\?"),
        (lambda: refine(SCORES, IMAGE - 11.0), r"image: expected colours in 0..255, got -2 to -2; give image_range"),
        (lambda: refine(SCORES + np.nan, IMAGE), "scores: expected finite numbers"),
        (lambda: refine(np.eye(3, dtype=np.float32)[None, :, :].repeat(3, 0) * 0 + [[[0.1]], [[0.3]], [[0.6]]], IMAGE),
         "scores: expected logits, got probabilities"),
        (lambda: refine(SCORES, IMAGE, layout="HWC", max_memory=9), "expected class-first scores .* with max_memory"),
        (lambda: refine(SCORES, IMAGE, radius=1.5), "radius: expected a whole number, got 1.5"),
        (lambda: refine(SCORES, IMAGE, eps=0), "eps: expected more than 0"),
        (lambda: refine(SCORES, IMAGE, stride=0), "stride: expected at least 1"),
        (lambda: refine(SCORES, IMAGE, sigma=1), "sigma: expected one of stride, radius, eps, weight, balance"),
        (lambda: refine_mask(IMAGE[..., 0], IMAGE), "mask: expected .*; refine_labels takes class numbers"),
        (lambda: refine_mask(SCORES[0] - 1, IMAGE), "mask: expected probabilities.*; give logits=True for logits"),
        (lambda: refine_mask(SCORES[0] * np.nan, IMAGE, logits=True), "mask: expected finite floating point logits"),
        (lambda: refine_mask(IMAGE > 9, IMAGE), r'mask: expected height and width last .* give layout="HWC"'),
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


def test_masks_of_more_bits_are_taken():
    mask = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint16)
    refined = refine_mask(mask, torch.zeros(3, 8, 8))
    assert refined.dtype == torch.uint16
    assert np.array_equal(refined.numpy(), refine_mask(mask.numpy(), np.zeros((8, 8, 3))))


def test_the_papers_settings():
    assert Refinement.paper() == Refinement(stride=4, radius=3, eps=1.0, weight=2.0, balance=0.0, iterations=3)
