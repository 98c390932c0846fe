"""Refines a picture that is larger than memory, and says how fast and in how much memory.

    python tests/large_pictures.py 30000 --max-memory 3GB --threads 2 [--radius 20] [--folder /tmp]

The picture (uint8 RGB) and its scores (float16 at a quarter of its size) are made in files, which are deleted at the
end: 30,000 pixels a side take 2.7 + 0.9 GB, and the labels 0.9 GB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

RUN = """
import json, sys, time, torch
from segmodel.experiments.timing import peak_bytes
from segmodel.model.untrained_crf import Refinement
from segmodel.inference.tiles import bytes_of, refine_tiles
folder, threads, memory, settings = sys.argv[1], int(sys.argv[2]), bytes_of(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(threads)
idle, start = peak_bytes(), time.perf_counter()
refine_tiles(f"{folder}/s.npy", f"{folder}/i.npy", f"{folder}/o.npy", own=Refinement(**settings), max_memory=memory,
             progress=True)
print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak_bytes(), "idle": idle}))
"""


def make(folder: Path, side: int, classes: int) -> None:
    """Regions of a few hundred pixels with grain, and scores that know them roughly."""
    rng, cells = np.random.default_rng(0), side // 4
    image = np.lib.format.open_memmap(folder / "i.npy", "w+", np.uint8, (side, side, 3))
    scores = np.lib.format.open_memmap(folder / "s.npy", "w+", np.float16, (classes, cells, cells))
    regions = rng.integers(0, classes, (side // 300 + 2, side // 300 + 2))
    colours = rng.integers(30, 226, (classes, 3))
    grain = rng.integers(-15, 16, (400, side, 3))
    for top in range(0, side, 400):
        rows = np.arange(top, min(top + 400, side))
        labels = regions[(rows // 300)[:, None], np.arange(side) // 300]
        image[rows] = (colours[labels] + grain[: len(rows)]).clip(0, 255)
        low = labels[2::4, 2::4][:, :cells]
        at = slice(top // 4, top // 4 + len(low))
        scores[:, at] = 3 * (low == np.arange(classes)[:, None, None]) + rng.normal(0, 1, (classes, *low.shape))
    image.flush()
    scores.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", type=int)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--max-memory", default="3GB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--radius", type=int, default=20)
    parser.add_argument("--balance", type=float, default=0.5)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--folder")
    given = parser.parse_args()
    settings = {"stride": 4, "weight": 8.0, "radius": given.radius, "balance": given.balance,
                "iterations": given.iterations}  # fmt: skip
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        make(Path(name), given.side, given.classes)
        command = [sys.executable, "-c", RUN, name, str(given.threads), given.max_memory, json.dumps(settings)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    found = json.loads(done.stdout)
    print(f"{given.side} x {given.side} x {given.classes}: {found['seconds']:.1f} s, "
          f"{given.side**2 / 1e6 / found['seconds']:.2f} Mpx/s, peak {found['peak'] / 2**30:.2f} GiB "
          f"of which {found['idle'] / 2**30:.2f} before it, {given.threads} threads, {settings}")  # fmt: skip


if __name__ == "__main__":
    main()
