"""What a training step keeps for its backward pass, and what inference needs at most.

    python -m segmodel.memory                  # the paper's ResNet-101, 2 crops of 321x321; inference at 2048x1024

Activations are the tensors that automatic differentiation keeps between the forward and the backward pass, each
storage counted once, without the parameters. Peak memory is that of a process of its own (resident set), so that it
counts whatever the libraries use.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.model.config import ModelConfig
from segmodel.model.network import Network
from segmodel.model.resnet import LAYERS
from segmodel.training.objective import hard_pixel_loss


def activation_bytes(model: Network, images: Tensor, labels: Tensor) -> int:
    """Bytes kept between the forward pass of a training step (loss included) and its backward pass.

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


def training_activations(options: argparse.Namespace) -> tuple[int, int]:
    """Activation bytes of one step without and with --checkpoint-activations."""
    torch.manual_seed(0)
    model = Network(options.classes, ModelConfig(depth=options.depth)).train()
    height, width = options.crop
    images = 255 * torch.rand(options.batch_size, 3, height, width)
    labels = torch.randint(0, options.classes, (options.batch_size, height, width))
    results = []
    for recompute in (False, True):
        model.backbone.recompute = recompute
        results.append(activation_bytes(model, images, labels))
    return results[0], results[1]


def peak_bytes() -> int:
    """The most resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would begin with the parent's peak
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@torch.inference_mode()
def infer(options: argparse.Namespace) -> None:
    """Labels of one image; prints the peak memory before the model's first pass and after it."""
    model = Network(options.classes, ModelConfig(depth=options.depth)).eval()
    before = peak_bytes()
    height, width = options.image
    model(255 * torch.rand(1, 3, height, width)).argmax(1)
    print(before, peak_bytes())


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("memory", __doc__)
    parser.add_argument("--depth", type=int, default=101, choices=LAYERS, help="depth of the ResNet (default: 101)")
    parser.add_argument("--classes", type=int, default=21, help="number of classes (default: 21)")
    parser.add_argument("--batch-size", type=int, default=2, help="images of the training step (default: 2)")
    parser.add_argument("--crop", type=_size, default=(321, 321), help="HEIGHT,WIDTH of these (default: 321,321)")
    parser.add_argument("--image", type=_size, default=(1024, 2048), help="and at inference (default: 1024,2048)")
    parser.add_argument("--only-inference", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.classes, options.batch_size) < 1:
        raise UserError(f"--classes, --batch-size: expected at least 1, got {options.classes}, {options.batch_size}")
    if options.only_inference:
        infer(options)
        return 0
    plain, recomputed = training_activations(options)
    crop = "x".join(map(str, options.crop))
    print(f"training step, ResNet-{options.depth}, {options.batch_size} crops of {crop}, float32, activations kept:")
    print(f"  as it is                  {plain / 2**20:10.1f} MiB")
    print(f"  --checkpoint-activations  {recomputed / 2**20:10.1f} MiB  ({recomputed / plain:.3f} of it)")
    command = [sys.executable, "-m", "segmodel.memory", "--only-inference", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"inference: {' '.join(done.stderr.split()[-30:]) or f'exit status {done.returncode}'}")
    before, peak = map(int, done.stdout.split())
    image = "x".join(map(str, options.image))
    print(f"inference, one image of {image}, float32, resident memory of the process:")
    print(f"  with the model loaded     {before / 2**20:10.1f} MiB")
    print(f"  at its peak               {peak / 2**20:10.1f} MiB")
    return 0


def _size(text: str) -> tuple[int, int]:
    sides = [int(side) if side.isdecimal() else 0 for side in text.split(",")]
    if len(sides) != 2 or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"expected HEIGHT,WIDTH, got {text!r}")
    return sides[0], sides[1]


if __name__ == "__main__":
    sys.exit(cli.run("memory", main))
