"""Dilated depthwise convolutions whose backward pass is fast on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution with dilation d, stride 1 and padding that keeps the size; same weights, same result.

    On a CPU oneDNN's backward pass of such a layer takes 4 to 10 times as long as those of d x d plain ones on every
    d-th row and column (5x5, 1248 channels, 12x12 cells: 160 ms beside 37), which are what it consists of. So a training
    goes through those. The forward pass alone, and a GPU, are better off with the convolution as it is.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input)
        d = int(self.dilation[0])
        count, channels, height, width = input.shape
        rows, columns = -(-height // d), -(-width // d)
        cells = functional.pad(input, (0, columns * d - width, 0, rows * d - height)).permute(0, 2, 3, 1)
        # N, rows, d, columns, d, C -> d, d, N, rows, columns, C: channels stay last, as oneDNN likes it
        parts = cells.reshape(count, rows, d, columns, d, channels).permute(2, 4, 0, 1, 3, 5)
        flat = parts.reshape(d * d * count, rows, columns, channels).permute(0, 3, 1, 2)
        padding = [side // 2 for side in self.kernel_size]
        result = functional.conv2d(flat, self.weight, self.bias, padding=padding, groups=self.groups)
        parts = result.permute(0, 2, 3, 1).reshape(d, d, count, rows, columns, channels).permute(2, 3, 0, 4, 1, 5)
        return parts.reshape(count, rows * d, columns * d, channels).permute(0, 3, 1, 2)[:, :, :height, :width]


def separate_dilated(module: nn.Module) -> None:
    """Makes every layer in a module that ``DilatedDepthwise`` can stand for one; weights and names stay."""
    for part in module.modules():
        if type(part) is nn.Conv2d and _fits(part):
            part.__class__ = DilatedDepthwise  # keeps weights, names, hooks and device


def _fits(conv: nn.Conv2d) -> bool:
    same = tuple(d * (side // 2) for d, side in zip(conv.dilation, conv.kernel_size, strict=True))
    odd = all(side % 2 for side in conv.kernel_size)
    return (conv.groups == conv.in_channels == conv.out_channels and conv.dilation[0] == conv.dilation[1] > 1
            and conv.stride == (1, 1) and conv.padding == same and odd and conv.padding_mode == "zeros")  # fmt: skip
