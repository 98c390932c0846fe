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

from segmodel.kernels import triton_guidance_crf, triton_guided_filter, triton_moments, triton_narrow, triton_wide
from segmodel.kernels.triton_windows import LAUNCH

TARGETS = {name: GPUTarget("cuda", int(name[3:]), 32) for name in ("sm_80", "sm_90", "sm_100")}
TARGETS["gfx942"] = GPUTarget("hip", "gfx942", 64)
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
DOUBLES = {"sums"}
SCALARS = {"labels": "i32", "height": "i32", "width": "i32", "area": "i32", "eps": "fp32"}
RADII = (3, 7, 31, 60)


def kernels() -> list[tuple]:
    """Name, kernel, options and launch, for 21 labels and a colour guide: the paper's radius, the largest of narrow
    windows, and two of wide ones."""
    padded, pixels = triton_guidance_crf.tiling(21)
    labels = {"POTTS": True, "LABELS": padded, "PIXELS": pixels}
    crf = triton_guidance_crf
    every = [
        ("update", crf._update, labels | {"SOFTMAX": True}, crf.LAUNCH),
        ("update_backward", crf._update_backward, labels, crf.LAUNCH),
    ]
    for radius in RADII:
        _, tile = triton_guided_filter.tiling(16, 21, 128, 128, radius)
        tile |= {"CHANNELS": 3}
        guide = {"CHANNELS": 3, "RADIUS": radius, "COLUMNS": tile["COLUMNS"]}
        narrow = radius <= triton_guided_filter.NARROW
        slopes = triton_narrow.slopes if narrow else triton_wide.prefix_sums
        collect = triton_narrow.collect if narrow else triton_wide.collect
        cases = [
            ("guide_sums", triton_moments.guide_sums, guide | {"ROWS": triton_moments.ROWS, "PRODUCTS": True}),
            ("factorise", triton_moments.factorise, guide | {"PIXELS": triton_moments.PIXELS}),
            ("slopes", slopes, tile | {"CLIPPED": True, "DIVIDE": False}),
            ("slopes_adjoint", slopes, tile | {"CLIPPED": True, "DIVIDE": True}),
            ("collect", collect, tile | {"CLIPPED": True, "DIVIDE": True}),
        ]
        if not narrow:
            rows = {"ROWS": triton_guided_filter.SOLVE_ROWS}
            cases.append(("solve", triton_wide.solve, tile | rows | {"CLIPPED": True}))
        every += [(f"{name} radius {radius}", kernel, sizes, LAUNCH) for name, kernel, sizes in cases]
    return every


def compile_kernel(kernel, constants: dict, launch: dict, target: GPUTarget):
    names = kernel.arg_names
    doubles = DOUBLES if "eps" in names or "PRODUCTS" in names else set()  # the moments of the guide
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
