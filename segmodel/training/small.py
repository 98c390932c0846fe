"""The recipe "small": settings for few pictures and few cores, derived from both.

- ResNet-18 on a CPU, ResNet-50 on a GPU.
- Crop: three quarters of the median shorter side, from 65 to 225 (GPU: 321), a multiple of 16 plus 1.
- Batch: 8 (GPU: 16), at most as many as there are pictures.
- Epochs: as many as take about half an hour on these cores, 150 million pixels a core (GPU: 20 thousand million), but
  10 at least, and 200 at most, or 600 steps if these are more.
- Mining joins after 0.3 and the guidance CRF after 0.6 of the steps.
- Ten validations, of 50 pictures at most before the end.
- Of 200 pictures or more a twentieth, at most 24, are held out of the training: the guidance is chosen on them.
"""

from typing import Any

import numpy as np
import torch

from segmodel.common.device import choose_device
from segmodel.data import SegmentationData
from segmodel.data.base import evenly_spaced

SAMPLED = 16
"""Pictures whose size is looked at."""


def small_recipe(data: SegmentationData, *, device: str) -> dict[str, dict[str, Any]]:
    """Settings by section for a training set."""
    sides = [min(data[index].image.shape[:2]) for index in evenly_spaced(len(data), SAMPLED)]
    gpu = choose_device(device).type != "cpu"
    return derived(len(data), int(np.median(sides)), cores=torch.get_num_threads(), gpu=gpu)


def derived(images: int, side: int, *, cores: int, gpu: bool) -> dict[str, dict[str, Any]]:
    """The rule above, for so many pictures of this median shorter side in pixels."""
    crop = min(max(3 * side // 4, 65), 321 if gpu else 225) // 16 * 16 + 1
    batch = min(16 if gpu else 8, images)
    pixels = 20e9 if gpu else 150e6 * cores
    most = max(200, 600 * batch // images)
    epochs = min(max(int(pixels / (images * crop**2)), 10), most)
    model = {"depth": 50 if gpu else 18}
    train = {
        "batch_size": batch, "epochs": epochs, "mining_from": 0.3,
        "joint_from": 0.6, "validate_every": max(1, epochs // 10), "validate_images": 50,
        "batch_norm_epochs": min(1.0, 400 / images), "hold_out": min(images // 20, 24) if images >= 200 else 0,
    }  # fmt: skip
    return {"model": model, "augmentation": {"crop": (crop, crop)}, "train": train}
