"""What a training step keeps for its backward pass, and the resident memory that inference needs at most."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor

from segmodel.common.errors import UserError
from segmodel.common.tables import Table
from segmodel.experiments.timing import peak_bytes
from segmodel.model.config import ModelConfig
from segmodel.model.network import Network
from segmodel.training.objective import hard_pixel_loss
from segmodel.training.settings import Config


def activation_bytes(model: Network, images: Tensor, labels: Tensor) -> int:
    """Bytes kept between the forward pass of a training step (loss included) and its backward pass.

    These are the tensors that automatic differentiation keeps, each storage counted once, without the parameters.

    Args:
        images: ``(N, 3, H, W)`` in 0..255. labels: ``(N, H, W)`` int64.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = hard_pixel_loss(model(images), labels)
    total = sum(kept.values())
    del loss  # until here it kept them alive, so that no storage was counted under another's address
    return total


@torch.inference_mode()
def inference_peak(config: ModelConfig, num_classes: int, size: tuple[int, int]) -> tuple[int, int]:
    """Peak bytes of this process before the model's first pass on an image of ``size`` (height, width) and after it."""
    model = Network(num_classes, config).eval()
    before = peak_bytes()
    model(255 * torch.rand(1, 3, *size)).argmax(1)
    return before, peak_bytes()


def memory_table(config: Config, num_classes: int, image: tuple[int, int]) -> Table:
    """MiB in float32 on the CPU: activations without and with recomputation, and inference in a process of its own.

    Args:
        config: model, crop and batch size of the training. image: height and width at inference.

    Raises:
        UserError: a configuration that is no model, or whose backbone cannot be recomputed.
    """
    torch.manual_seed(0)
    kept, crop, batch_size, backbone = [], config.augmentation.crop, config.train.batch_size, config.model.backbone
    try:
        model = Network(num_classes, config.model).train()
        for recompute in (False, True):
            model.backbone.recompute = recompute
            images = 255 * torch.rand(batch_size, 3, *crop)
            labels = torch.randint(0, num_classes, (batch_size, *crop))
            kept.append(activation_bytes(model, images, labels) / 2**20)
    except ValueError as error:
        raise UserError(str(error)) from error
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        loaded, peak = (size / 2**20 for size in pool.submit(inference_peak, config.model, num_classes, image).result())
    rows = [
        ["activations kept for the backward pass", kept[0], None],
        ["with --checkpoint-activations", kept[1], f"{kept[1] / kept[0]:.3f}"],
        ["inference: resident with the model loaded", loaded, None],
        ["inference: resident at the peak", peak, None],
    ]
    name = backbone if backbone != "resnet" else f"ResNet-{config.model.depth}"
    sizes = "training step of {} crops of {}x{}, inference on an image of {}x{}".format(batch_size, *crop, *image)
    return Table(f"Memory: {name}, {num_classes} classes, float32; {sizes}", ["", "MiB", "share"], rows)
