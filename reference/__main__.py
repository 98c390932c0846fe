"""Print the whole reference as one HTML page: ``python -m segmodel.reference --output paper.html``."""

import argparse
import sys
from importlib import import_module
from pathlib import Path


def live_stages() -> list[tuple[str, str, str]]:
    """Run the torch model once and return its stages; empty where torch is not installed.

    Imported by name and only here: the reference itself must work where torch does not exist.
    """
    try:
        torch, nn, product = (import_module(name) for name in ("torch", "torch.nn", "segmodel.segmodel"))
    except ImportError as error:
        print(f"Fig. 4 is left out: {error}", file=sys.stderr)
        return []
    model = product.SegModel(21).eval()
    stages = [("image", "300 x 500, RGB in 0..255", "1 x 3 x 300 x 500")]

    def note(name: str):  # type: ignore[no-untyped-def]
        def hook(module: object, _: object, out: object) -> None:
            parameters = sum(p.numel() for p in module.parameters())  # type: ignore[attr-defined]
            kind = f"{type(module).__name__}, {parameters:,} parameters"
            stages.append((name, kind, " x ".join(str(side) for side in out.shape)))  # type: ignore[attr-defined]

        return hook

    parts = {"backbone": model.backbone}
    for name, part in model.head.named_children():
        steps = enumerate(part) if isinstance(part, nn.ModuleList) else ()
        parts |= {f"head.{name}.{k}": step for k, step in steps} or {f"head.{name}": part}
    for name, part in parts.items():
        part.register_forward_hook(note(name))
    with torch.no_grad():
        scores = model(torch.zeros(1, 3, 300, 500))
    return [*stages, ("final scores", "fixed bilinear up-sampling", " x ".join(str(side) for side in scores.shape))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m segmodel.reference", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    path = parser.parse_args().output
    try:
        for needed in ("docutils", "pygments"):
            import_module(needed)
    except ImportError:
        print("error: the page needs docutils and Pygments: python -m pip install 'segmodel[page]'", file=sys.stderr)
        return 2
    if path.is_dir() or not path.parent.is_dir():
        print(f"error: --output: expected a file in an existing folder, got {path}", file=sys.stderr)
        return 2
    page = import_module("segmodel.reference.page").render(live_stages())
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        print(f"error: --output: {path}: cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    print(f"{path}: {len(page.encode()) / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
