"""Tensors in files: safetensors and PyTorch's .pth; their sizes are checked before they are read."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from segmodel.common.reading import open_file, parse_json

MOST = "SEGMODEL_MAX_ARRAY_BYTES"
HEADER = 1 << 24
"""Most bytes of a header, which is JSON; those of large models have some hundred thousand."""


def read_safetensors(path: str | Path, *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor], bytes]:
    """The metadata, tensors and bytes of a safetensors file; without ``tensors`` only the metadata.

    The file is opened once, since a training may replace it at any moment: safetensors opens one for PyTorch twice, and
    would give the header of one checkpoint and the data of the next.

    Raises:
        OSError: it cannot be read. ValueError and others: it is no such file, or not as long as its header says.
    """
    with open_file(path, most=MOST) as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER, size - 8):
            raise ValueError(f"expected a header of at most {min(HEADER, max(0, size - 8))} bytes, got {length}")
        header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("expected a table as its header")
        metadata = header.pop("__metadata__", None) or {}
        expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if size != expected:  # a tail, maybe sparse, of any size could follow
            raise ValueError(f"expected {expected} bytes, as its header says, got {size}")
        if not tensors:
            return metadata, {}, b""
        file.seek(0)
        content = file.read(size)
    return metadata, load(content), content


def read_pth(path: str | Path) -> object:
    """What ``torch.save`` wrote, as far as it is data: nothing is executed.

    Raises:
        Exception: as of ``torch.load``. ValueError: packed parts, which may hold any size and torch.save never writes.
    """
    with open_file(path, most=MOST) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("expected parts that are not compressed, as torch.save writes them")
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
