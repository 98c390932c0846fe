"""Structured patch prediction (Sec. 3.2): n x n label patches of one coarse cell, laid out in space."""

from torch import Tensor


def patch_rearrange(x: Tensor, *, patch_size: int) -> Tensor:
    """``out[n, c, h, w] = x[n, m * C + c, h // p, w // p]`` with ``m = (h mod p) * p + (w mod p)``.

    The patch position m is the outermost part of the channel index, as in the authors' code; ``torch.nn.PixelShuffle``
    has the label outermost. One strided copy (with p = 1 a view of x): a Triton kernel would move the same bytes.

    Args:
        x: ``N (p * p * C) H W``, any dtype.
        patch_size: p, an integer >= 1.

    Returns ``N C (p * H) (p * W)``.

    Raises:
        ValueError: if x is not N C H W or its channels are not a multiple of p * p.
    """
    if not isinstance(patch_size, int) or patch_size < 1:
        raise ValueError(f"patch_size: expected an integer >= 1, got {patch_size!r}")
    if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[1] % patch_size**2:
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x: expected N C H W with C a multiple of {patch_size**2}, got {got}")
    n, channels, height, width = x.shape
    labels = channels // patch_size**2
    x = x.reshape(n, patch_size, patch_size, labels, height, width)  # [N, row, column, C, H, W]
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, labels, height * patch_size, width * patch_size)
