"""``segmodel.densecrf``: pydensecrf's calls; its numbers where they are plain mathematics."""

import math

import numpy as np
import pytest
import torch
from densecrf_ways import WAYS, scene
from hypothesis import given
from hypothesis import strategies as st

from segmodel import densecrf
from segmodel.kernels import box_filter, guidance_crf, guided_filter


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_scripts_run_with_the_import_changed_and_mend_the_labels(way):
    picture, p, truth = scene()
    found = way(densecrf, densecrf, picture, p)
    if way.__name__ in ("binary_with_zeros", "foreground_probability"):
        p, truth = np.stack([1 - p[1], p[1]]), np.where(truth == 1, 1, 0)
    wrong = (p.argmax(0) != truth).sum()
    assert found.shape == truth.shape
    left = {"positions_alone": 1, "grey_stacked": 0.8, "grey_features": 0.8, "unit_range_class_first": 0.8}
    assert (found != truth).sum() <= left.get(way.__name__, 0.5) * wrong


def plain(picture, p, **options):
    d = densecrf.DenseCRF2D(p.shape[2], p.shape[1], len(p), **options)
    d.setUnaryEnergy(-np.log(p).reshape(len(p), -1))
    return d


def test_one_bilateral_term_is_the_guidance_crf():
    picture, p, _ = scene(21, 30)
    d = plain(picture, p, stride=1)
    d.addPairwiseBilateral(sxy=8, srgb=13, rgbim=picture, compat=2.5)
    guide = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 1.3
    expected = guidance_crf(torch.from_numpy(p).log()[None], guide, weight=2.5, radius=4, iterations=3)
    assert np.abs(d.inference(3) - expected.softmax(1).flatten(2)[0].numpy()).max() < 1e-5


def test_terms_add_up_and_arrays_are_energies():
    picture, p, _ = scene(21, 30)
    guide, scores = torch.from_numpy(picture).permute(2, 0, 1)[None].float(), torch.from_numpy(p).log()[None]
    mu = np.array([[0, 1, 2], [1.5, -1, 0.5], [1, 0, 0]], np.float32)
    d = plain(picture, p, stride=1)
    d.addPairwiseGaussian(sxy=3, compat=np.array([-1, -2, 0.5]))
    d.addPairwiseBilateral(sxy=8, srgb=10, rgbim=picture, compat=mu)
    phi = scores
    for _ in range(2):
        q = phi.softmax(1)
        smooth = box_filter(box_filter(q, radius=3), radius=3)
        messages = torch.einsum("kl,nlhw->nkhw", torch.from_numpy(mu + mu.T) / 2, guided_filter(q, guide, radius=4))
        phi = scores - torch.tensor([-1, -2, 0.5]).reshape(3, 1, 1) * smooth - messages
    assert np.abs(d.inference(2) - phi.softmax(1).flatten(2)[0].numpy()).max() < 1e-5


@given(st.floats(0.5, 40))
def test_two_boxes_have_the_gaussians_variance(sxy):
    stride = 1 if sxy < 2 else 2 if sxy < 8 else 4
    line = torch.zeros(1, 1, 1, 401, dtype=torch.float64)
    line[..., 200] = 1
    out = densecrf._Kernel(sxy, None, torch.ones(())).filter(stride, line)(line)[0, 0, 0]
    variance = (out * (torch.arange(401) - 200) ** 2).sum().item()
    assert abs(math.sqrt(variance) - sxy / stride) < 0.75


def test_steps_are_the_inference_and_the_free_energy_falls():
    picture, p, _ = scene()
    d = plain(picture, p)
    d.addPairwiseGaussian(sxy=3, compat=1)
    d.addPairwiseBilateral(sxy=12, srgb=13, rgbim=picture, compat=1)
    q, first, second = d.startInference()
    assert np.abs(q - p.reshape(3, -1)).max() < 1e-5
    energies = [d.klDivergence(q)]
    for _ in range(4):
        d.stepInference(q, first, second)
        energies.append(d.klDivergence(q))
    assert np.array_equal(q, d.inference(4))
    assert energies == sorted(energies, reverse=True)
    unary = -np.log(p).reshape(3, -1)
    alone = plain(picture, p)
    assert alone.klDivergence(alone.inference(1)) == pytest.approx((p.reshape(3, -1) * (np.log(p).reshape(3, -1) + unary
           - unary.min(0))).sum(), rel=1e-3)  # fmt: skip


def test_tensors_stay_tensors_and_have_gradients():
    picture, p, _ = scene()
    unary = (-torch.from_numpy(p).log()).reshape(3, -1).requires_grad_()
    d = densecrf.DenseCRF2D(80, 60, 3)
    d.setUnaryEnergy(unary)
    d.addPairwiseBilateral(sxy=30, srgb=13, rgbim=torch.from_numpy(picture), compat=3)
    q = d.inference(2)
    q[0].sum().backward()
    assert isinstance(q, torch.Tensor)
    assert q.shape == (3, 4800)
    assert unary.grad.abs().max() > 0


def test_features_say_the_size_whichever_axis_is_first():
    picture, p, _ = scene()
    feats = densecrf.create_pairwise_bilateral((9, 9), (13, 13, 13), picture, chdim=2)
    results = []
    for rows in ([0, 1, 2, 3, 4], [1, 0, 2, 3, 4]):
        d = densecrf.DenseCRF(4800, 3)
        d.setUnaryEnergy(densecrf.unary_from_softmax(p))
        d.addPairwiseEnergy(feats[rows], compat=4)
        assert d.size == (60, 80)
        results.append(d.inference(3))
    d = plain(picture, p)
    d.addPairwiseBilateral(sxy=9, srgb=13, rgbim=picture, compat=4)
    results.append(d.inference(3))
    assert np.abs(results[0] - results[1]).max() == 0
    assert np.abs(results[0] - results[2]).max() < 1e-4


def test_unaries_by_hand():
    given = np.array([[0, 1], [2, 0]])
    assert np.allclose(np.exp(-densecrf.unary_from_labels(given, 2, 0.7)), [[0.5, 0.7, 0.3, 0.5], [0.5, 0.3, 0.7, 0.5]])
    found = np.exp(-densecrf.unary_from_labels(given, 3, 0.7, zero_unsure=False))
    assert np.allclose(found, [[0.7, 0.15, 0.15, 0.7], [0.15, 0.7, 0.15, 0.15], [0.15, 0.15, 0.7, 0.15]])
    sm = np.array([[[0.8, 0.0]], [[0.2, 1.0]]])
    assert np.allclose(np.exp(-densecrf.unary_from_softmax(sm, scale=0.5)), [[0.65, 0.25], [0.35, 0.75]])
    assert np.allclose(np.exp(-densecrf.unary_from_softmax(sm, clip=0.1)), [[0.8, 0.1], [0.2, 1]])
    feats = densecrf.create_pairwise_bilateral((2, 4), (10, 5, 1), np.arange(18).reshape(2, 3, 3), chdim=2)
    assert np.allclose(feats[:, 4], [0.5, 0.25, 1.2, 13 / 5, 14])
    assert densecrf.create_pairwise_bilateral((2, 4), 10, np.zeros((2, 3))).shape == (3, 6)


BAD = {
    "u: expected shape": lambda d, im: d.setUnaryEnergy(np.zeros((2, 4800))),
    "u: expected a finite energy": lambda d, im: d.setUnaryEnergy(np.full((3, 4800), np.inf)),
    "expected setUnaryEnergy": lambda d, im: densecrf.DenseCRF2D(3, 2, 2).inference(1),
    "rgbim: expected 60 rows and 80 columns": lambda d, im: d.addPairwiseBilateral(3, 3, im.swapaxes(0, 1), 3),
    "rgbim: expected .H, W, bands.": lambda d, im: d.addPairwiseBilateral(3, 3, im[..., 0], 3),
    "sxy: expected positive": lambda d, im: d.addPairwiseGaussian(0, 3),
    "srgb: expected positive": lambda d, im: d.addPairwiseBilateral(3, 0, im, 3),
    "compat: expected a number or shape": lambda d, im: d.addPairwiseGaussian(3, np.ones(2)),
    "normalization: expected": lambda d, im: d.addPairwiseGaussian(3, 3, normalization=densecrf.NO_NORMALIZATION),
    "kernel: expected": lambda d, im: d.addPairwiseGaussian(3, 3, kernel=7),
    "kernels without positions": lambda d, im: d.addPairwiseEnergy(im.reshape(-1, 3).T / 13, 3),
    "or over volumes": lambda d, im: d.addPairwiseEnergy(densecrf.create_pairwise_gaussian((1, 1, 1), (12, 20, 20)), 3),
    "features: expected .2 or more, 4800.": lambda d, im: d.addPairwiseEnergy(np.zeros((2, 7)), 3),
    "features: expected 60 rows": lambda d, im: d.addPairwiseEnergy(
        densecrf.create_pairwise_gaussian((3, 3), (80, 60)), 3
    ),
    "labels: expected 2": lambda d, im: densecrf.unary_from_labels(np.array([0, 3]), 2, 0.5),
    "gt_prob: expected": lambda d, im: densecrf.unary_from_labels(np.array([0, 1]), 2, 1.0),
    "scale: expected": lambda d, im: densecrf.unary_from_softmax(np.ones((2, 3)), scale=2),
    "schan: expected 1 or 3": lambda d, im: densecrf.create_pairwise_bilateral((2, 2), (1, 1), im, chdim=2),
    "sdims: expected 2": lambda d, im: densecrf.create_pairwise_gaussian((2,), (3, 3)),
    "npoints, nlabels, stride": lambda d, im: densecrf.DenseCRF(0, 2),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_named(message):
    picture, p, _ = scene()
    with pytest.raises(ValueError, match=message):
        BAD[message](plain(picture, p), picture)
