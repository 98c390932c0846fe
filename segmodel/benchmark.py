"""Times the operators against the peers that are installed: python -m segmodel.benchmark --threads 2 --json FILE

Peers: OpenCV's ximgproc.guidedFilter (opencv-contrib-python-headless), kornia's guided_blur, pydensecrf. All
contestants of a table take turns in one run, so that their ratios survive a busy machine; a result that differs from
its peer's where both must agree is an error, not a figure.
"""

import ctypes
import importlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import segmodel
from segmodel import cli
from segmodel.files import write_output
from segmodel.kernels import guidance_crf, guided_filter
from segmodel.options import UserError

FILTER_SIZES = ((21, 75, 125), (21, 300, 500), (19, 256, 512))  # labels, height, width
CRF_SIZE = (21, 300, 500)
RADII = (3, 1, 7, 15, 31)
Call = Callable[[], Any]


def peer(name: str) -> ModuleType | None:
    """The module, or None if it is not installed (or lacks what it imports)."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def percentile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent))


def peak_memory(call: Call) -> float | None:
    """MiB by which a call raises the resident memory at most; None where Linux's counters are missing."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or freed memory of earlier calls would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _resident("VmRSS")
        call()
        return round((_resident("VmHWM") - before) / 1024, 1)
    except (OSError, AttributeError, TypeError):
        return None


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def compare(calls: dict[str, Call], seconds: float) -> dict[str, dict[str, float | None]]:
    """Milliseconds of every call, which take turns for ``seconds`` each on average; ratio: of minima, to the first."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    memory = {name: peak_memory(call) for name, call in calls.items()}
    until = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < until or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    first = min(next(iter(times.values())))
    return {
        name: {
            "p20": percentile(values, 20),
            "p50": statistics.median(values),
            "p80": percentile(values, 80),
            "min": min(values),
            "ratio": min(values) / first,
            "peak_mib": memory[name],
        }
        for name, values in times.items()
    }


def inputs(labels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Scores and a guide with edges and grain; colours in 0..255."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, labels, height, width, generator=generator)
    coarse = torch.rand(1, 3, -(-height // 16), -(-width // 16), generator=generator)
    guide = torch.nn.functional.interpolate(coarse, size=(height, width), mode="nearest")
    return scores, 235 * guide + 20 * torch.rand(1, 3, height, width, generator=generator)


def filter_calls(scores: Tensor, guide: Tensor, radius: int = 3) -> dict[str, Call]:
    """The guided filter, guide moments included, as every library wants its arrays."""
    calls: dict[str, Call] = {"segmodel": lambda: guided_filter(scores, guide, radius=radius)}
    cv2, kornia = peer("cv2"), peer("kornia.filters")
    if cv2 is not None and hasattr(cv2, "ximgproc"):
        picture, maps = (np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()) for x in (guide, scores))
        opencv = lambda: cv2.ximgproc.createGuidedFilter(picture, radius, 1.0).filter(maps)  # noqa: E731
        inside = np.s_[2 * radius : -2 * radius, 2 * radius : -2 * radius]
        difference = np.abs(opencv()[inside] - guided_filter(scores, guide)[0].permute(1, 2, 0).numpy()[inside]).max()
        if difference > 1e-3:
            raise RuntimeError(f"guided filter and OpenCV differ by {difference} inside the border")
        calls["opencv"] = opencv
    if kornia is not None:
        calls["kornia"] = lambda: kornia.guided_blur(guide, scores, 2 * radius + 1, 1.0)
    return calls


def crf_calls(labels: int, height: int, width: int) -> dict[str, Call]:
    """The guidance CRF as the paper uses it (quarter size, 3 iterations), at full size, and a dense CRF."""
    (scores, guide), (small, small_guide) = inputs(labels, height, width), inputs(labels, height // 4, width // 4)
    small.requires_grad_()
    calls: dict[str, Call] = {
        "segmodel": lambda: guidance_crf(small.detach(), small_guide),
        "segmodel, with gradient": lambda: guidance_crf(small, small_guide).sum().backward(),
        "segmodel, full size": lambda: guidance_crf(scores, guide),
        "segmodel, full size, 1 iteration": lambda: guidance_crf(scores, guide, iterations=1),
    }
    dense = peer("pydensecrf.densecrf")
    if dense is not None:
        energy = np.ascontiguousarray(-scores[0].log_softmax(0).reshape(labels, -1).numpy())
        picture = np.ascontiguousarray(guide[0].permute(1, 2, 0).to(torch.uint8).numpy())

        def pydensecrf(iterations: int) -> None:
            crf = dense.DenseCRF2D(width, height, labels)
            crf.setUnaryEnergy(energy)
            crf.addPairwiseGaussian(sxy=3, compat=3)
            crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=picture, compat=10)
            crf.inference(iterations)

        calls["pydensecrf, full size, 10 iterations"] = lambda: pydensecrf(10)
        calls["pydensecrf, full size, 1 iteration"] = lambda: pydensecrf(1)
    return calls


def environment() -> dict[str, Any]:
    """Versions and processor, without which a time says nothing."""
    names = ("cv2", "kornia", "pydensecrf", "triton")
    versions = {name: getattr(peer(name), "__version__", "installed") for name in names if peer(name) is not None}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "versions": {
            "segmodel": segmodel.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            **versions,
        },
        "processor": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
    }


def print_table(title: str, rows: dict[str, dict[str, float | None]]) -> None:
    print(f"\n{title}\n{'':38}{'p20':>9}{'p50':>9}{'p80':>9}{'min':>9}{'ratio':>8}{'peak MiB':>10}")
    for name, row in rows.items():
        times = "".join(f"{row[key]:9.2f}" for key in ("p20", "p50", "p80", "min"))
        memory = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        print(f"{name:38}{times}{row['ratio']:8.2f}{memory:>10}")


def operator_tables(seconds: float) -> dict[str, Any]:
    """The guided filter and the guidance CRF against their peers, and how the filter grows with its radius."""
    tables: dict[str, Any] = {}
    for size in FILTER_SIZES:
        scores, guide = inputs(*size)
        calls = filter_calls(scores, guide)
        tables["guided filter, guide moments included, {}x{}x{}".format(*size)] = compare(calls, seconds)
    tables["guidance CRF of {}x{}x{}, quarter size unless it says full".format(*CRF_SIZE)] = compare(
        crf_calls(*CRF_SIZE), seconds
    )
    scores, guide = inputs(*CRF_SIZE)
    by_radius: dict[str, Call] = {f"radius {r}": partial(guided_filter, scores, guide, radius=r) for r in RADII}
    tables["guided filter of {}x{}x{} by radius".format(*CRF_SIZE)] = compare(by_radius, seconds)
    return tables


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("benchmark", __doc__.splitlines()[0])
    parser.add_argument("--only", choices=("operators", "model", "gpu"), help="some of the tables (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and OpenCV (default: 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each contestant (default: 2)")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto",
                        help="dtype of the model's convolutions (default: auto)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file as well")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        raise UserError(f"--threads: expected at least 1, got {options.threads}")
    if not options.seconds > 0:
        raise UserError(f"--seconds: expected more than 0, got {options.seconds}")
    torch.set_num_threads(options.threads)
    cv2 = peer("cv2")
    if cv2 is not None:
        cv2.setNumThreads(options.threads)
    report: dict[str, Any] = environment()
    print(json.dumps(report), "times in ms", sep="\n")
    tables: dict[str, Any] = {}
    if options.only in (None, "operators"):
        tables |= operator_tables(options.seconds)
    if options.only in (None, "model"):
        from segmodel.benchmark_model import model_tables

        tables |= model_tables(options.seconds, precision=options.precision)
    for title, rows in tables.items():
        print_table(title, rows)
    report |= {"milliseconds": tables}
    if options.only in (None, "gpu"):
        from segmodel import benchmark_gpu

        report["gpu"] = benchmark_gpu.tables()
        benchmark_gpu.print_tables(report["gpu"])
    if options.json:
        write_output("--json", Path(options.json), json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("benchmark", main))
