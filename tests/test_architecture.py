"""What the tree promises: who may import whom, and nothing that hides the installed lmms-eval."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lmms_eval
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "stgridpool": {"llava", "lmms_eval", "lmms_eval_stgridpool"},
    "llava": {"lmms_eval", "lmms_eval_stgridpool"},
    "lmms_eval/stgridpool": set(),
}


@cache
def telling_nodes(path: Path) -> list[ast.AST]:
    """The imports and asserts in a file, and the calls of `eval` and `exec`, anywhere in it."""
    kinds = ast.Import | ast.ImportFrom | ast.Assert
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds) or _runs_text(node)]


def _runs_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}


def imported_names(path: Path) -> set[str]:
    """Everything that a file imports by its full name, anywhere in it."""
    nodes = telling_nodes(path)
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    packages = ["", *(".".join(parts) for parts in _packages(path))]  # by how many dots an import begins with
    members = [(node, alias) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    found = ((packages[node.level], node.module, alias.name) for node, alias in members)
    return names | {".".join(filter(None, parts)) for parts in found}


def _packages(path: Path) -> Iterator[tuple[str, ...]]:
    """The package that holds a file, then the one around it, and so on; names as they are imported."""
    parts = path.relative_to(REPOSITORY).parent.parts
    if parts[:2] == ("lmms_eval", "stgridpool"):
        parts = ("lmms_eval_stgridpool", *parts[2:])
    while parts:
        yield parts
        parts = parts[:-1]


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    return {name.split(".")[0] for name in imported_names(path)}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_follow_the_arrows(folder):
    files = list((REPOSITORY / folder).rglob("*.py"))
    assert files
    for path in files:
        found = imported_packages(path) & (FORBIDDEN[folder] | {"scripts", "tests"})
        assert not found, f"{path.relative_to(REPOSITORY)} imports {found}"


def test_nothing_but_task_files_names_what_is_in_tasks():
    """The folder's own modules share a constant; the rest of the plug-in does not depend on any task."""
    tasks = REPOSITORY / "lmms_eval" / "stgridpool" / "tasks"
    assert tasks.is_dir()
    folders = ["stgridpool", "llava", "lmms_eval", "scripts"]
    for path in [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]:
        found = [name for name in imported_names(path) if name.startswith("lmms_eval_stgridpool.tasks")]
        assert not found or path.parent == tasks, f"{path.relative_to(REPOSITORY)} imports {found}"


def test_scripts_do_not_change_where_python_looks_for_modules():
    """A command finds what lies beside it; the miniature's modules name each other relatively, wherever they lie."""
    scripts = REPOSITORY / "scripts"
    for path in scripts.rglob("*.py"):
        assert "sys.path" not in path.read_text(), path.relative_to(REPOSITORY)
    modules = list((scripts / "nano" / "miniature").glob("*.py"))
    assert modules
    for path in modules:
        assert not imported_packages(path) & {"miniature", "nano"}, path.name


def test_lmms_eval_is_the_installed_one():
    assert lmms_eval.__file__ is not None
    assert REPOSITORY / "lmms_eval" not in Path(lmms_eval.__file__).parents
    assert not (REPOSITORY / "lmms_eval" / "__init__.py").exists()


def test_every_package_is_installed():
    """An editable install finds what is missing from the list; a wheel does not."""
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    inits = [path.parent for name in FORBIDDEN for path in (REPOSITORY / name).rglob("__init__.py")]
    names = {".".join(path.relative_to(REPOSITORY).parts) for path in inits}
    names = {name.replace("lmms_eval.stgridpool", "lmms_eval_stgridpool") for name in names}
    tasks = REPOSITORY / "custom_tasks"  # task files, no code
    folders = [tasks, *(path for path in tasks.iterdir() if path.is_dir())]
    names |= {".".join(("lmms_eval_stgridpool", *path.relative_to(REPOSITORY).parts)) for path in folders}
    assert names == set(listed)


def test_tests_are_no_package():
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))


def test_custom_tasks_hold_no_code():
    names = [path.name for path in (REPOSITORY / "custom_tasks").rglob("*") if path.is_file()]
    assert all(name.endswith((".yaml", ".md")) or name == "_template" for name in names)


@pytest.mark.parametrize("folder", ["stgridpool", "llava", "lmms_eval"])
def test_library_code_has_no_assert_and_no_eval(folder):
    for path in (REPOSITORY / folder).rglob("*.py"):
        if path.parent.name == "contract":  # tests that ship with the library
            continue
        for node in telling_nodes(path):
            assert not isinstance(node, ast.Assert | ast.Call), f"{path}:{node.lineno}"


def test_checkpoints_never_run_code_of_their_own():
    """Otherwise transformers asks on the terminal whether to run it."""
    files = [path for folder in FORBIDDEN for path in (REPOSITORY / folder).rglob("*.py")]
    calls = [
        ast.unparse(node)
        for text in (path.read_text() for path in files)
        if re.search(r"\bAuto\w+\.from_pretrained\(", text)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and re.fullmatch(r"Auto\w+\.from_pretrained", ast.unparse(node.func))
    ]
    assert len(calls) >= 5
    assert [call for call in calls if "trust_remote_code=False" not in call] == []
