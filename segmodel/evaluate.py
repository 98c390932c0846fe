"""Figures of a trained model on a data set.

python -m segmodel.evaluate RUN
python -m segmodel.evaluate RUN --data camvid:PATH --split val --json figures.json
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segmodel import cli
from segmodel.checkpoint import find_checkpoint, load_model, read_checkpoint, versions, write_atomically
from segmodel.data import SegmentationData, open_data
from segmodel.guidance import GuidanceCRF
from segmodel.metrics import ConfusionMatrix, Scores, table
from segmodel.model import SegModel
from segmodel.options import UserError

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def choose_device(name: str) -> torch.device:
    """ "auto" is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from error
    return torch.device(name)


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """ "auto": bfloat16 where the processor multiplies matrices of it (AMX, recent GPUs), else float32 (None)."""
    if precision != "auto":
        return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than torch 2.11
    return torch.bfloat16 if device.type == "cpu" and capabilities.get("amx_bf16") else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def place(model: SegModel, device: torch.device) -> SegModel:
    """The model on a device, its filters channels last in memory (faster on CPUs and tensor cores alike)."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_batch(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 ``(N, H, W, 3)`` -> float32 ``(N, 3, H, W)`` in 0..255, channels last in memory."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()


@torch.inference_mode()
def label_maps(
    model: SegModel, image: np.ndarray, *, modes: Sequence[bool | None], dtype: torch.dtype | None = None
) -> list[np.ndarray]:
    """Labels ``(H, W)`` uint8 of one image ``(H, W, 3)``, one for each ``guidance`` mode, from one backbone pass."""
    device = next(model.parameters()).device
    batch = to_batch(image[None].copy(), device)
    with autocast(device, dtype):
        coarse = model.head.coarse(model.features(batch), image.shape[:2])
    configured = model.head.guidance != "off"
    return [
        model.head.refine(coarse, batch, guidance=configured if mode is None else mode)
        .argmax(1)[0]
        .to(torch.uint8)
        .cpu()
        .numpy()
        for mode in modes
    ]


def evaluate(
    model: SegModel,
    data: SegmentationData,
    *,
    modes: Sequence[bool | None] = (None,),
    dtype: torch.dtype | None = None,
    description: str = "evaluate",
    leave: bool = True,
    limit: int = 0,
) -> list[Scores]:
    """Scores over a whole data set, one for each ``guidance`` mode (False, True, None: as configured).

    ``limit`` takes that many evenly spaced images only.
    """
    was_training = model.training
    model.eval()
    matrices = [ConfusionMatrix(model.num_classes) for _ in modes]
    chosen = np.linspace(0, len(data) - 1, min(limit or len(data), len(data))).astype(int).tolist()
    for index in tqdm(chosen, desc=description, unit="image", leave=leave, disable=None):
        sample = data[index]
        for matrix, prediction in zip(matrices, label_maps(model, sample.image, modes=modes, dtype=dtype), strict=True):
            matrix.update(prediction, sample.label)
    model.train(was_training)
    return [matrix.scores() for matrix in matrices]


def add_inference_options(parser: argparse.ArgumentParser, *, modes: Sequence[str]) -> None:
    """The options that evaluate and predict share."""
    parser.add_argument("--guidance", choices=modes, default=modes[0],
                        help="guidance CRF (default: as in the run's configuration)")  # fmt: skip
    parser.add_argument("--guidance-radius", type=int, metavar="R", help="an untrained guidance CRF (Potts) instead of "
                        "the run's, with this radius (Sec. 7.2: added at inference)")  # fmt: skip
    parser.add_argument("--guidance-weight", type=float, metavar="W", help="the same, with this weight lambda")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU where there is one)")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
                        help="dtype of the convolutions (default: auto)")  # fmt: skip


def load_for_inference(path: str | Path, options: argparse.Namespace) -> tuple[SegModel, torch.dtype | None]:
    """The model of a path on the device, with the guidance CRF that the options ask for, and the autocast dtype."""
    device = choose_device(options.device)
    model = load_model(path)
    if options.guidance_radius is not None or options.guidance_weight is not None:
        changes = {"guidance_radius": options.guidance_radius, "guidance_weight": options.guidance_weight}
        given = {name: value for name, value in changes.items() if value is not None}
        try:
            config = dataclasses.replace(model.config, **given)
        except ValueError as error:
            raise UserError(f"--{str(error).replace('_', '-', 1)}") from error
        model.head.crf = GuidanceCRF(
            model.num_classes,
            radius=config.guidance_radius,
            eps=config.guidance_eps,
            weight=config.guidance_weight,
            iterations=config.guidance_iterations,
        )
    return place(model, device), autocast_dtype(options.precision, device)


def check_classes(path: str | Path, classes: Sequence[str], data: SegmentationData) -> None:
    if len(classes) != len(data.classes):
        raise UserError(f"{path}: trained on {len(classes)} classes, but {data.name} has {len(data.classes)}")


def result_json(scores: Scores, classes: Sequence[str]) -> dict:
    """Scores as JSON values; NaN (an absent class) becomes null."""
    values = dataclasses.asdict(scores)
    values["iou"] = dict(zip(classes, scores.iou, strict=True))
    return json.loads(json.dumps(values).replace("NaN", "null"))


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("evaluate", __doc__)
    parser.add_argument("run", help="run folder or checkpoint file")
    parser.add_argument("--data", help="scenes, camvid:PATH, voc:PATH or folder:PATH (default: that of the run)")
    parser.add_argument("--split", default="val", help="part of the data (default: val)")
    parser.add_argument("--classes", help="also the mean IoU over these classes: names, separated by commas")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file as well")
    add_inference_options(parser, modes=("configured", "on", "off", "both"))
    options = parser.parse_args(arguments)
    file = find_checkpoint(options.run)
    card, _ = read_checkpoint(file, weights=False)
    model, dtype = load_for_inference(file, options)
    spec = options.data or card.get("data")
    if not spec:
        raise UserError("--data: expected, since the checkpoint does not name its data")
    data = open_data(spec, split=options.split)
    check_classes(file, model.classes, data)
    modes: dict[str, list[bool | None]] = {"configured": [None], "on": [True], "off": [False], "both": [False, True]}
    titles = {"configured": ["model"], "on": ["guidance on"], "off": ["guidance off"],
              "both": ["guidance off", "guidance on"]}[options.guidance]  # fmt: skip
    subset = _subset(options.classes, data.classes)
    results = evaluate(model, data, modes=modes[options.guidance], dtype=dtype)
    columns = dict(zip(titles, results, strict=True))
    print(f"{file}\n{spec}, {options.split}: {len(data)} images\n")
    print(table(columns, data.classes))
    report = {title: result_json(scores, data.classes) for title, scores in columns.items()}
    if subset:
        for title, scores in columns.items():
            mean = float(np.nanmean([scores.iou[index] for index in subset]))
            report[title]["miou_of_classes"] = mean
            print(f"mIoU over {', '.join(data.classes[index] for index in subset)}: {100 * mean:.2f} ({title})")
    if options.json:
        content = {"checkpoint": str(file), "data": spec, "split": options.split, "images": len(data),
                   "classes": options.classes, "results": report, "versions": versions()}  # fmt: skip
        try:
            write_atomically(Path(options.json), json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"--json: {options.json}: cannot be written ({error.strerror})") from error
    return 0


def _subset(names: str | None, classes: Sequence[str]) -> list[int]:
    wanted = [name.strip() for name in names.split(",")] if names else []
    for name in wanted:
        if name not in classes:
            raise UserError(f"--classes: expected some of {', '.join(classes)}, got {name!r}")
    return [classes.index(name) for name in wanted]


if __name__ == "__main__":
    sys.exit(cli.run("evaluate", main))
