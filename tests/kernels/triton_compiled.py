"""Compile every Triton kernel for machines that are not here; print registers, shared memory and spills as JSON."""

import json
import re
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from segmodel.kernels import (
    triton_guidance_crf,
    triton_guided_filter,
    triton_many,
    triton_moments,
    triton_narrow,
    triton_wide,
)
from segmodel.kernels.triton_solve import FEW
from segmodel.kernels.triton_windows import LAUNCH, launch

TARGETS = {name: GPUTarget("cuda", int(name[3:]), 32) for name in ("sm_80", "sm_90", "sm_100")}
TARGETS["gfx942"] = GPUTarget("hip", "gfx942", 64)
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
DOUBLES = {"guide_sums": {"sums"}, "factorise": {"sums", "out"}}
SCALARS = {"labels": "i32", "height": "i32", "width": "i32", "area": "i32", "eps": "fp32"}
LABELS = (21, 150, 512, 1000)
# Channels and radius: the paper's, wide windows in one warp and in more; other guides.
GUIDES = ((3, 3), (3, 31), (3, 500), (1, 3), (16, 3), (16, 31))


def updates(labels: int) -> list[tuple]:
    crf, sizes = triton_guidance_crf, {"POTTS": True} | triton_guidance_crf.blocks(labels)
    return [
        (f"update labels {labels}", crf._update, sizes | {"SOFTMAX": True}, crf.LAUNCH),
        (f"last_update labels {labels}", crf._update, sizes | {"SOFTMAX": False}, crf.LAUNCH),
        (f"update_backward labels {labels}", crf._update_backward, sizes, crf.LAUNCH),
    ]


def filters(channels: int, radius: int) -> list[tuple]:
    few, wide = channels <= FEW, triton_guided_filter.is_wide(channels, radius)
    _, tile = triton_guided_filter.tiling(16, 21, 128, 128, channels, radius)
    guide = {"CHANNELS": channels, "RADIUS": radius, "COLUMNS": tile["COLUMNS"]}
    factorise, pixels = triton_moments.factorise if few else triton_many.factorise, {"PIXELS": triton_moments.PIXELS}
    slopes = triton_wide.prefix_sums if wide else triton_narrow.slopes
    collect = triton_wide.collect if wide else triton_narrow.collect
    one, every = launch(tile["COLUMNS"]), launch(tile["COLUMNS"], channels + 1)
    cases = [
        ("guide_sums", triton_moments.guide_sums, guide | {"ROWS": triton_moments.ROWS}, one),
        ("factorise", factorise, guide | pixels, LAUNCH),
        ("slopes", slopes, tile | {"CLIPPED": True, "DIVIDE": False}, every),
        ("slopes_adjoint", slopes, tile | {"CLIPPED": True, "DIVIDE": True}, every),
        ("collect", collect, tile | {"CLIPPED": True, "DIVIDE": True}, every),
    ]
    if wide:
        solve, rows = triton_wide.solve if few else triton_many.solve, {"ROWS": triton_guided_filter.SOLVE_ROWS}
        cases.append(("solve", solve, tile | rows | {"CLIPPED": True}, launch(tile["COLUMNS"], min(channels, FEW) + 1)))
    return [(f"{name} channels {channels} radius {radius}", *case) for name, *case in cases]


def kernels() -> list[tuple]:
    """Name, kernel, options and launch of every kernel."""
    every = [updates(labels) for labels in LABELS] + [filters(*guide) for guide in GUIDES]
    return [kernel for some in every for kernel in some]


def compile_kernel(kernel, constants: dict, launch: dict, target: GPUTarget):
    names, doubles = kernel.arg_names, DOUBLES.get(kernel.__name__, ())
    signature = {
        n: "constexpr" if n in constants else SCALARS.get(n, "*fp64" if n in doubles else "*fp32") for n in names
    }
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")},
    )
    return triton.compile(source, target=target, options=dict(launch))


def resources(compiled, target: GPUTarget) -> dict[str, int]:
    if target.backend == "hip":
        text = compiled.asm["amdgcn"]
        registers, spills = (
            int(re.search(rf"\.{key}:\s*(\d+)", text)[1]) for key in ("vgpr_count", "vgpr_spill_count")
        )
    else:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            text = subprocess.run([TOOL, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        registers, spills = (int(re.search(rf"{key}:(\d+)", text)[1]) for key in ("REG", "STACK"))
    return {"registers": registers, "shared": compiled.metadata.shared, "spills": spills}


JOBS = [(*kernel, target) for kernel in kernels() for target in TARGETS]


def row(index: int) -> tuple[str, dict[str, int]]:
    """Name and resources of one job."""
    name, kernel, constants, launch, target = JOBS[index]
    compiled = compile_kernel(kernel, constants, launch, TARGETS[target])
    return f"{name} {target}", resources(compiled, TARGETS[target])


if __name__ == "__main__":
    # Forked, so that the jobs need not be sent: kernels cannot be pickled.
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        table = dict(pool.map(row, range(len(JOBS))))
    print(json.dumps({"triton": triton.__version__, "kernels": table}))
