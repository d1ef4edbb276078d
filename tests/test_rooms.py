"""Rooms (folders) import only from rooms below them: the tree can be read bottom-up, and a part can be changed without its users."""

import ast
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOTS = {name: Path(find_spec(name).origin).parent for name in ("fastrsx", "fastrsx.kernels")}


def module_at(dotted):
    """The file of a module, or None."""
    root = "fastrsx.kernels" if dotted.startswith("fastrsx.kernels") else "fastrsx"
    path = ROOTS[root].joinpath(*dotted.removeprefix(root).strip(".").split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(name, file):
    """The modules that one imports, inside functions too."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")] if node.level else node.module.split(".")
            for alias in node.names:
                names = [".".join(filter(None, [*base, *last])) for last in ((alias.name,), ())]
                yield from [name for name in names if name.startswith("fastrsx.") and module_at(name)][:1]


def room(module):
    """The folder of a module, or the module itself if it is in none."""
    return ".".join(module.split(".")[: 3 if module.startswith("fastrsx.kernels.") else 2])


def edges():
    """(importing room, imported room)."""
    for root, folder in ROOTS.items():
        for file in folder.rglob("*.py"):
            if root == "fastrsx" and ROOTS["fastrsx.kernels"] in file.parents:  # as in a wheel
                continue
            parts = file.relative_to(folder).with_suffix("").parts
            name = ".".join([root, *(parts[:-1] if parts[-1] == "__init__" else parts)])
            if name not in ROOTS and parts[-1] != "__main__":
                yield from ((room(name), room(other)) for other in imported(name, file) if room(name) != room(other))


def test_no_room_imports_from_above():
    below = {}
    for user, used in set(edges()):
        below.setdefault(user, set()).add(used)
    order = list(TopologicalSorter(below).static_order())  # raises CycleError, which names the rooms
    assert (
        order.index("fastrsx.kernels.registers") < order.index("fastrsx.kernels.cpu") < order.index("fastrsx.engines") < order.index("fastrsx.solver")
    )
    assert not [(user, used) for user, used in edges() if user.startswith("fastrsx.kernels") and not used.startswith("fastrsx.kernels")]


@pytest.mark.parametrize("package", ["fastrsx", "fastrsx.kernels"])
def test_every_room_is_packaged_and_says_what_it_is(package):
    for file in ROOTS[package].glob("*/__init__.py"):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file
