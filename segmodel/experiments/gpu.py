"""Times of the operators on a GPU, each in a CUDA graph: the kernels alone, without their launches from Python.

Peers are timed as they are called, launches included: not all of them can be captured in a graph.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from segmodel.common.environment import peer
from segmodel.experiments.timing import Call, Times, inputs, times_table
from segmodel.kernels import guidance_crf, guided_filter, prepare_guide
from segmodel.kernels.guided_filter import composite_filter

SIZES = ((1, 21, 75, 125), (16, 21, 128, 128), (1, 19, 256, 512))  # images, labels, height, width
WIDE = 31
MEASURED = "guided filter, triton, prepared guide"
PLAIN = ", with launches"
"""The end of the names of calls that are timed outside a graph."""
SHARE = "share of the copy rate"


def with_gradient(scores: Tensor, guide: Any, backend: str) -> Call:
    """A call of the guidance CRF and its gradients by scores and weight."""
    scores, weight = scores.detach().requires_grad_(), torch.tensor(2.0, device=scores.device, requires_grad=True)
    ones = torch.ones_like(scores)
    return lambda: torch.autograd.grad(
        guidance_crf(scores, guide, weight=weight, backend=backend), (scores, weight), ones
    )


def calls(scores: Tensor, guide: Tensor) -> dict[str, Call]:
    """Calls by name: both backends, the standard operators compiled, and kornia."""
    prepared = prepare_guide(guide)
    found: dict[str, Call] = {}
    for backend in ("triton", "torch"):
        run: Callable[..., Tensor] = partial(guided_filter, scores, backend=backend)
        found |= {
            f"guided filter, {backend}, prepared guide": partial(run, prepared),
            f"guided filter, {backend}": partial(run, guide),
            f"guidance CRF, {backend}": partial(guidance_crf, scores, guide, backend=backend),
            f"guidance CRF with gradient, {backend}": with_gradient(scores, guide, backend),
        }
    wide = prepare_guide(guide, radius=WIDE)
    compiled = torch.compile(composite_filter)  # a registered operator is opaque to the compiler
    found |= {
        f"guided filter, triton, prepared guide, radius {WIDE}": partial(guided_filter, scores, wide, backend="triton"),
        "prepare guide, triton": partial(prepare_guide, guide, backend="triton"),
        f"guided filter, standard operators compiled, prepared guide{PLAIN}": partial(compiled, scores, prepared),
    }
    kornia = peer("kornia.filters")
    if kornia is not None:
        found[f"guided filter, kornia{PLAIN}"] = partial(kornia.guided_blur, guide, scores, 7, 1.0)
    return found


def filter_bytes(scores: Tensor) -> int:
    """Bytes that the Triton filter moves with a prepared guide: 5 + 5 planes a label, 12 + 3 of the guide."""
    images, labels, height, width = scores.shape
    return 4 * images * height * width * (10 * labels + 12 + 3)


def microseconds(call: Call, *, graph: bool = True) -> dict[str, float]:
    """Percentiles of the time of a call."""
    from triton.testing import do_bench, do_bench_cudagraph

    call()  # compiles
    with torch.cuda.stream(torch.cuda.Stream()):
        times = (do_bench_cudagraph if graph else do_bench)(call, rep=20, quantiles=[0.2, 0.5, 0.8])
    return {key: round(1000 * time, 1) for key, time in zip(("p20", "p50", "p80"), times, strict=True)}


def copy_rate() -> float:
    """Bytes a microsecond, read and written, of a copy within the GPU's memory (not in a graph, which is slower)."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / microseconds(lambda: target.copy_(source), graph=False)["p50"]


def measure() -> dict[str, Any] | str:
    """Microseconds by size and call, and the filter's share of the copy rate; "not measured" without a GPU."""
    if not torch.cuda.is_available():
        return "not measured"
    rate = copy_rate()
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(), "copy rate, GB/s": round(rate / 1e3)}
    for images, *rest in SIZES:
        scores, guide = (x.cuda().expand(images, -1, -1, -1).contiguous() for x in inputs(*rest))
        times: dict[str, Any] = {
            name: microseconds(call, graph=not name.endswith(PLAIN)) for name, call in calls(scores, guide).items()
        }
        share = filter_bytes(scores) / times[MEASURED]["p50"] / rate
        report["x".join(map(str, scores.shape))] = times | {SHARE: round(share, 4)}
    return report


def text(report: dict[str, Any] | str) -> str:
    """What ``measure`` found as text, a table a size."""
    if isinstance(report, str):
        return report
    tables = []
    for size, rows in report.items():
        if isinstance(rows, dict):
            base = rows[MEASURED]["p50"]
            times: Times = {name: {**row, "ratio": row["p50"] / base} for name, row in rows.items() if name != SHARE}
            note = f"{MEASURED}: {100 * rows[SHARE]:.0f} % of the copy rate on the bytes that it moves"
            tables.append(times_table(size, times, note).text())
    head = f"{report['device']}, copies {report['copy rate, GB/s']} GB/s; microseconds, peers with launches"
    return "\n\n".join([head, *tables])
