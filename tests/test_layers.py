"""The house stands: no circle between modules, and only the arrows between rooms that stand in ``BELOW``."""

import ast
from functools import cache
from pathlib import Path

import segmodel

PACKAGE = Path(segmodel.__file__).parent
BELOW: dict[str, set[str]] = {
    "package": set(),
    "reference": set(),
    "kernels": set(),
    "common": set(),
    "data": {"common"},
    "model": {"common", "kernels"},
    "inference": {"common", "kernels", "data", "model"},
    "evaluation": {"common", "data", "model", "inference"},
    "training": {"common", "data", "model", "inference", "evaluation"},
    "experiments": {"common", "kernels", "data", "model", "inference", "evaluation", "training"},
    "product": {"common", "data", "model", "inference"},
    "command": {"common", "kernels", "data", "model", "inference", "evaluation", "training", "experiments", "product"},
}
"""Room -> rooms that it may import. A command is a module beside the rooms, the product ``segmodel.segmodel``; the
package itself has the version and the public names, which load on first use."""


def room(module: str) -> str:
    parts = module.split(".")[1:]
    if parts == ["segmodel"]:
        return "product"
    if not parts:
        return "package"
    return "command" if (len(parts) == 1 and parts[0] not in BELOW) or parts[-1] == "__main__" else parts[0]


def imported(file: Path, package: str, modules: set[str]) -> set[str]:
    """The modules of this package that a file imports, at its top or within a function; not for type checking alone."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: 1 - node.level or None]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            names = {f"{base}.{alias.name}" for alias in node.names}
            found.update(names & modules or {base} & modules)
        elif isinstance(node, ast.Import):
            found.update({alias.name for alias in node.names} & modules)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return found


@cache
def graph() -> dict[str, set[str]]:
    files = {}
    for file in sorted(path for room in [PACKAGE, *PACKAGE.iterdir()] if room.is_dir() for path in room.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(("segmodel", *parts)).removesuffix(".__init__")] = file
    packages = {name: name if file.stem == "__init__" else name.rpartition(".")[0] for name, file in files.items()}
    return {name: imported(file, packages[name], set(files)) - {name} for name, file in files.items()}


def test_only_the_arrows_of_the_table_lead_from_room_to_room() -> None:
    arrows = {(room(one), room(other), one, other) for one, others in graph().items() for other in others}
    assert not [f"{one} -> {other}" for a, b, one, other in sorted(arrows) if b not in BELOW[a] | {a, "package"}]


def test_no_module_imports_itself_by_whatever_way() -> None:
    left = dict(graph())
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"circles among {', '.join(sorted(left))}"


def test_commands_do_not_import_one_another() -> None:
    commands = {name for name in graph() if room(name) == "command"}
    assert not {(name, other) for name in commands for other in graph()[name] & commands}
