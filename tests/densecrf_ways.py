"""Ways in which public scripts call pydensecrf, as small functions of our own: they run with either package.

    python tests/densecrf_ways.py PHOTO LABELS.png      # both beside each other, where pydensecrf is installed

A way takes the modules (densecrf, utils), a picture (H, W, 3) uint8 and probabilities (L, H, W) float32, and returns
labels (H, W).
"""

import importlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch


def softmax_and_numbers(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    labels, height, width = p.shape
    d = crf.DenseCRF2D(width, height, labels)
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p)))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=40, srgb=13, rgbim=np.copy(picture), compat=10)
    return np.argmax(d.inference(5), axis=0).reshape(height, width)


def every_keyword(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    labels, height, width = p.shape
    d = crf.DenseCRF2D(width, height, labels)
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p)))
    options = {"kernel": crf.DIAG_KERNEL, "normalization": crf.NORMALIZE_SYMMETRIC}
    d.addPairwiseGaussian(sxy=(3, 3), compat=3, **options)
    d.addPairwiseBilateral(sxy=(30, 30), srgb=(13, 13, 13), rgbim=picture, compat=20, **options)
    return np.array(d.inference(10)).reshape(p.shape).argmax(0)


def positional(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = crf.DenseCRF2D(p.shape[2], p.shape[1], len(p))
    d.setUnaryEnergy(-np.log(p.reshape(len(p), -1)))
    d.addPairwiseBilateral(8, 20, picture, 5)
    return np.argmax(d.inference(10), axis=0).reshape(p.shape[1:])


def points_and_features(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = crf.DenseCRF(picture.shape[0] * picture.shape[1], len(p))
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p)))
    options = {"kernel": crf.DIAG_KERNEL, "normalization": crf.NORMALIZE_SYMMETRIC}
    d.addPairwiseEnergy(utils.create_pairwise_gaussian(sdims=(3, 3), shape=picture.shape[:2]), compat=3, **options)
    feats = utils.create_pairwise_bilateral(sdims=(30, 30), schan=(20, 20, 20), img=picture, chdim=2)
    d.addPairwiseEnergy(feats, compat=10, **options)
    return np.argmax(d.inference(5), axis=0).reshape(picture.shape[:2])


def pairs_before_unaries(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.addPairwiseEnergy(utils.create_pairwise_gaussian(sdims=(5, 5), shape=picture.shape[:2]), compat=4)
    feats = utils.create_pairwise_bilateral(sdims=(40, 40), schan=(20, 20, 20), img=picture, chdim=2)
    d.addPairwiseEnergy(feats, compat=10)
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p)))
    return np.argmax(d.inference(5), axis=0).reshape(picture.shape[:2])


def label_map(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    colours, labels = np.unique(p.argmax(0) * 80, return_inverse=True)
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(colours))
    d.setUnaryEnergy(utils.unary_from_labels(labels.ravel(), len(colours), gt_prob=0.7, zero_unsure=False))
    d.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=crf.DIAG_KERNEL, normalization=crf.NORMALIZE_SYMMETRIC)
    d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=picture.astype("uint8"), compat=10)
    return (colours[np.argmax(d.inference(5), axis=0)] // 80).reshape(picture.shape[:2])


def labels_from_one(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    unary = utils.unary_from_labels(1 + p.argmax(0), len(p), gt_prob=0.51)
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.setUnaryEnergy(unary)
    d.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=crf.DIAG_KERNEL, normalization=crf.NORMALIZE_SYMMETRIC)
    feats = utils.create_pairwise_bilateral(sdims=(30, 30), schan=(12, 12, 12), img=picture, chdim=2)
    d.addPairwiseEnergy(feats, compat=12, kernel=crf.DIAG_KERNEL, normalization=crf.NORMALIZE_SYMMETRIC)
    return np.argmax(d.inference(10), axis=0).reshape(p.shape[1:]).astype(np.uint8)


def unsure_pixels(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    given = np.where(p.max(0) > 0.5, p.argmax(0) + 1, 0)
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.setUnaryEnergy(utils.unary_from_labels(given, len(p), gt_prob=0.8, zero_unsure=True))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=40, srgb=13, rgbim=picture, compat=10)
    return np.argmax(d.inference(5), axis=0).reshape(picture.shape[:2])


def binary_with_zeros(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    state = np.stack([p[0] + p[2:].sum(0), p[1]])
    state = np.where(state < 0.02, 0, state).astype(np.float32)
    with np.errstate(divide="ignore"):
        unary = -np.log(state.reshape(2, -1))
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], 2)
    d.setUnaryEnergy(np.minimum(unary, 1e4) if "pydensecrf" in crf.__name__ else unary)
    d.addPairwiseGaussian(sxy=20, compat=3)
    d.addPairwiseBilateral(sxy=30, srgb=20, rgbim=np.ascontiguousarray(picture), compat=10)
    return np.argmax(np.array(d.inference(5)), axis=0).reshape(picture.shape[:2])


def foreground_probability(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    both = np.stack([1 - p[1], p[1]]).clip(1e-6, 1)
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], 2)
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(both / both.sum(0, keepdims=True))))
    d.addPairwiseGaussian(sxy=1, compat=15)
    d.addPairwiseBilateral(sxy=60, srgb=5, rgbim=picture, compat=4)
    refined = np.array(d.inference(5)).reshape(2, *picture.shape[:2])[1]
    return (refined >= 0.5).astype(np.uint8)


def grey_stacked(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    grey = picture.mean(2).astype(np.uint8)
    d = crf.DenseCRF2D(grey.shape[1], grey.shape[0], len(p))
    d.setUnaryEnergy(-np.log(p.reshape(len(p), -1).astype(np.float32)))
    d.addPairwiseBilateral(sxy=(49, 49), srgb=(10, 10, 10), rgbim=np.stack((grey, grey, grey), axis=2), compat=10)
    return np.argmax(d.inference(5), axis=0).reshape(grey.shape)


def grey_features(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    grey = picture.mean(2) / 255
    d = crf.DenseCRF2D(grey.shape[1], grey.shape[0], len(p))
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p)))
    d.addPairwiseEnergy(utils.create_pairwise_bilateral((20, 20), (0.05,), grey[..., None], chdim=2), compat=10)
    return np.argmax(d.inference(10), axis=0).reshape(grey.shape)


def unit_range_class_first(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    image = (picture / 255).transpose(2, 0, 1)
    pairs = utils.create_pairwise_bilateral(sdims=(25, 25), schan=(0.05, 0.05, 0.05), img=image, chdim=0)
    d = crf.DenseCRF2D(image.shape[2], image.shape[1], len(p))
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p).reshape(len(p), -1)))
    d.addPairwiseEnergy(pairs, compat=20)
    return np.array(d.inference(20)).reshape(-1, *image.shape[1:]).argmax(0)


def in_steps(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p)))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=40, srgb=13, rgbim=picture, compat=10)
    q, first, second = d.startInference()
    energies = []
    for _ in range(8):
        d.stepInference(q, first, second)
        energies.append(d.klDivergence(q) / picture[..., 0].size)
    assert energies[-1] < energies[0]
    return np.argmax(q, axis=0).reshape(picture.shape[:2])


def scaled_unaries(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p, scale=0.85, clip=1e-9)))
    d.addPairwiseGaussian(sxy=(3, 3), compat=3)
    d.addPairwiseBilateral(sxy=(60, 60), srgb=(13, 13, 13), rgbim=np.ascontiguousarray(picture), compat=10)
    return np.argmax(d.inference(5), axis=0).reshape(picture.shape[:2])


def own_unaries_scaled(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    unary = 0.85 * p + 0.15 / len(p)
    unary = -np.log(np.clip(unary, 1e-9, 1)).reshape([len(p), -1]).astype(np.float32)
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.setUnaryEnergy(unary)
    scale = 2.0
    d.addPairwiseGaussian(sxy=3 / scale, compat=3)
    d.addPairwiseBilateral(sxy=80 / scale, srgb=13, rgbim=picture, compat=10)
    return np.array(d.inference(10)).reshape(p.shape).argmax(0)


def compatibility_arrays(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(p)))
    d.addPairwiseGaussian(sxy=3, compat=np.full(len(p), -3, np.float32))
    d.addPairwiseBilateral(sxy=40, srgb=13, rgbim=picture, compat=10 * (1 - np.eye(len(p), dtype=np.float32)))
    return np.argmax(d.inference(5), axis=0).reshape(picture.shape[:2])


def positions_alone(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    _, labels = np.unique(p.argmax(0), return_inverse=True)
    d = crf.DenseCRF2D(picture.shape[1], picture.shape[0], len(p))
    d.setUnaryEnergy(utils.unary_from_labels(labels.reshape(-1), len(p), gt_prob=0.9, zero_unsure=False))
    d.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=crf.FULL_KERNEL, normalization=crf.NORMALIZE_AFTER)
    return np.argmax(d.inference(10), axis=0).reshape(picture.shape[:2])


def batch_in_threads(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    with ThreadPoolExecutor(2) as pool:
        many = pool.map(lambda item: softmax_and_numbers(crf, utils, *item), [(picture, p), (picture[::-1].copy(), p)])
    return next(iter(many))


def class_of_settings(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    class PostProcess:
        def __init__(self, iterations: int, position: tuple[float, float], colour: tuple[float, float, float]):
            self.iterations, self.position, self.colour = iterations, position, colour

        def __call__(self, image: np.ndarray, logits: torch.Tensor) -> np.ndarray:
            probabilities = logits.softmax(0).cpu().numpy()
            d = crf.DenseCRF2D(image.shape[1], image.shape[0], len(logits))
            d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(probabilities)))
            d.addPairwiseGaussian(sxy=self.position[0], compat=self.position[1])
            d.addPairwiseBilateral(sxy=self.colour[0], srgb=self.colour[1], rgbim=image, compat=self.colour[2])
            return np.array(d.inference(self.iterations)).reshape(probabilities.shape)

    return PostProcess(10, (1, 3), (50, 3, 4))(picture, torch.from_numpy(p).log()).argmax(0)


def transposed_picture(crf: Any, utils: Any, picture: np.ndarray, p: np.ndarray) -> np.ndarray:
    image, turned = np.swapaxes(picture, 0, 1), np.swapaxes(p, 1, 2)
    d = crf.DenseCRF(image.shape[0] * image.shape[1], len(p))
    d.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(turned)))
    feats = utils.create_pairwise_gaussian(sdims=(4, 4), shape=image.shape[:2])
    d.addPairwiseEnergy(feats, compat=3, kernel=crf.DIAG_KERNEL, normalization=crf.NORMALIZE_SYMMETRIC)
    feats = utils.create_pairwise_bilateral(sdims=(25, 25), schan=13, img=image, chdim=2)
    d.addPairwiseEnergy(feats, compat=10, kernel=crf.DIAG_KERNEL, normalization=crf.NORMALIZE_SYMMETRIC)
    return np.argmax(d.inference(5), axis=0).reshape(image.shape[:2]).T


WAYS = (
    softmax_and_numbers, every_keyword, positional, points_and_features, pairs_before_unaries, label_map,
    labels_from_one, unsure_pixels, binary_with_zeros, foreground_probability, grey_stacked, grey_features,
    unit_range_class_first, in_steps, scaled_unaries, own_unaries_scaled, compatibility_arrays, positions_alone,
    batch_in_threads, class_of_settings, transposed_picture,
)  # fmt: skip


def scene(height: int = 60, width: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of three regions with grain, blurred and noisy probabilities of them, and the true labels."""
    rng = np.random.default_rng(0)
    y, x = np.indices((height, width))
    truth = np.where((y - 30) ** 2 + (x - 28) ** 2 < 300, 1, np.where(x > 58, 2, 0))
    colours = np.array([[40, 60, 130], [220, 150, 80], [150, 240, 220]])
    picture = (colours[truth] + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)
    one = torch.from_numpy((truth == np.arange(3)[:, None, None]).astype(np.float32))[None]
    soft = torch.nn.functional.avg_pool2d(one, 11, 1, 5, count_include_pad=False)[0].numpy()
    logits = 4 * soft + rng.normal(0, 0.6, soft.shape)
    return picture, torch.from_numpy(logits).softmax(0).float().numpy(), truth


def main(photo: str, labels: str) -> None:
    """Seconds of this process, and the share of equal labels, of every way with both packages."""
    from PIL import Image

    picture, truth = np.asarray(Image.open(photo).convert("RGB")).copy(), np.asarray(Image.open(labels))
    one = torch.from_numpy((truth == np.unique(truth[truth < 255])[:, None, None]).astype(np.float32))[None]
    small = torch.nn.functional.adaptive_avg_pool2d(one, [side // 8 for side in truth.shape])
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.interpolate(4 * small + noise, truth.shape, mode="bilinear")[0]
    p = logits.softmax(0).numpy().copy()
    own = importlib.import_module("segmodel.densecrf")
    original = [importlib.import_module(f"pydensecrf.{name}") for name in ("densecrf", "utils")]
    for way in WAYS:
        results, seconds = [], []
        for modules in ((own, own), original):
            start = time.process_time()
            results.append(way(*modules, picture, p))
            seconds.append(time.process_time() - start)
        print(f"{way.__name__:24} ours {seconds[0]:6.2f} s  pydensecrf {seconds[1]:6.2f} s  "
              f"equal {100 * (results[0] == results[1]).mean():6.2f} %")  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(*sys.argv[1:])
