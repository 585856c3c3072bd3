"""Standard output of a command holds results alone, so that ``--json`` can be read by programs."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import lmms_eval_stgridpool.cli

OWN = {name: Path(find_spec(name).origin).parent for name in ("lmms_eval_stgridpool", "stgridpool", "llava")}
COMMANDS = sorted(Path(lmms_eval_stgridpool.cli.__path__[0]).glob("*.py"))


def names_of(node: ast.AST) -> list[str]:
    """Modules that a statement imports, and names that may be modules."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


@cache
def loaded_with(module: str) -> frozenset[str]:
    """Modules that the import of one of ours loads next."""
    package, *parts = module.split(".")
    place = OWN[package].joinpath(*parts)
    files = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]  # else, say, a class
    return frozenset(name for file in files for node in ast.parse(file.read_text()).body for name in names_of(node))


def loads_lmms_eval(modules: list[str]) -> bool:
    found, to_do = set(), set(modules)
    while to_do - found:
        module = (to_do - found).pop()
        found.add(module)
        if module.split(".")[0] in OWN:
            to_do |= loaded_with(module)
    return any(module.split(".")[0] == "lmms_eval" for module in found)


def unguarded(node: ast.AST) -> Iterator[ast.AST]:
    """Statements outside the blocks of `logs_on_stderr` and of what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        is_guard = isinstance(child, ast.With) and "logs_on_stderr()" in map(ast.unparse, child.items)
        if not is_guard and not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from unguarded(child)


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: file.stem)
def test_commands_import_lmms_eval_only_where_its_log_goes_to_standard_error(file):
    """It logs warnings to what is standard output when it is imported."""
    for node in unguarded(ast.parse(file.read_text())):
        assert not loads_lmms_eval(names_of(node)), f"{file.name}:{node.lineno}: {ast.unparse(node)}"


def test_an_import_of_lmms_eval_is_found():
    """The test above depends on this: it would pass if it recognised no import."""
    assert loads_lmms_eval(["lmms_eval_stgridpool.videos.extraction"])
    assert not loads_lmms_eval(["lmms_eval_stgridpool.run.checks"])
