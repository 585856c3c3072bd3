"""Other versions are laid over the environment, for tests and for processes that they start."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

CONTRACT = """
import subprocess, sys
import pytest

@pytest.mark.contract
def test_the_overlay_is_seen():
    import from_the_overlay
    subprocess.run([sys.executable, "-c", "import from_the_overlay"], check=True)

def test_of_something_else():
    raise NotImplementedError
"""
FIRST_ERROR = "s, first: ModuleNotFoundError: No module named 'from_the_overlay'"


@pytest.fixture
def script(load_script, tmp_path, monkeypatch):
    """The script, for tests in a folder of their own, whose pytest need not import the plugins that are installed."""
    script = load_script("try_versions")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "OVERLAYS", tmp_path / "overlays")
    return script


@pytest.fixture
def pip(script, monkeypatch):
    """What pip was called with. It finds `newest`, or with dependencies `allowed`, and installs empty folders."""
    calls = []

    def install(*arguments):
        calls.append(arguments)
        if "--target" in arguments:
            Path(arguments[arguments.index("--target") + 1]).mkdir(parents=True)
        else:
            names = [Requirement(text).name for text in arguments if not text.startswith(("-", "/"))]
            wanted = pip.newest | (pip.allowed if "--no-deps" not in arguments else {})
            installed = [{"metadata": {"name": name, "version": wanted.get(name, "1.0+cpu")}} for name in names]
            script.Path(arguments[arguments.index("--report") + 1]).write_text(
                script.json.dumps({"install": installed})
            )

    pip = SimpleNamespace(calls=calls, newest={}, allowed={})
    monkeypatch.setattr(script, "_pip", install)
    return pip


ADAPTERS = """
import pytest

@pytest.mark.adapters
@pytest.mark.parametrize("name", ["glm4v", "qwen2_vl"])
@pytest.mark.parametrize("positions", ["survive"])
def test_pruning_is_masking(name, positions):
    if name == "glm4v":
        raise ValueError("another shape")
"""


PASSES = "import pytest\npytestmark = pytest.mark.{}\ndef test_nothing(): pass\n"


def write_tests(folder, **texts):
    """Write a file of tests for each marker, of those that pass by default, and one that must not be looked at."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  contract\n  adapters\n")
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "test_unmarked.py").write_text("exit('imported')\n")
    for marker in ("contract", "adapters"):
        (folder / "tests" / f"test_{marker}.py").write_text(texts.get(marker, PASSES.format(marker)))


def test_contract_tests_and_their_processes_see_the_overlay(script, tmp_path, monkeypatch, capsys):
    write_tests(tmp_path, contract=CONTRACT)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "from_the_overlay.py").touch()
    monkeypatch.setattr(script, "make_overlay", lambda versions: overlay)
    assert script.run_tests("oldest", {"b": "2", "a": "1"}) == 0
    contract, adapters = capsys.readouterr().out.splitlines()
    assert contract.startswith("oldest, contract: with a 1, b 2: 1 passed, 1 deselected")
    assert adapters.startswith("oldest, adapters: with a 1, b 2: 1 passed")


def test_the_first_error_stands_in_the_report(script, tmp_path, monkeypatch, capsys):
    write_tests(tmp_path, contract=CONTRACT)
    monkeypatch.setattr(script, "make_overlay", lambda versions: tmp_path / "nothing")
    assert script.run_tests("newest", {"a": "1"}, "overlay") == 1
    (contract,) = capsys.readouterr().out.splitlines()
    assert "1 failed" in contract
    assert contract.endswith(FIRST_ERROR)


def test_a_family_that_broke_and_its_assumption_are_named(script, tmp_path, monkeypatch, capsys):
    write_tests(tmp_path, contract=CONTRACT, adapters=ADAPTERS)
    monkeypatch.setattr(script, "make_overlay", lambda versions: tmp_path / "nothing")
    assert script.run_tests("oldest", {"transformers": "5.17.0"}) == 1
    contract, result, broken = capsys.readouterr().out.splitlines()
    assert contract.startswith("oldest, contract: with transformers 5.17.0: 1 failed")
    assert contract.endswith(FIRST_ERROR)
    assert result.startswith("oldest, adapters: with transformers 5.17.0: 1 failed, 1 passed")
    assert broken == "oldest, adapters: survive-glm4v breaks 'pruning is masking': ValueError: another shape"


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (
            "import pytest\n@pytest.mark.adapters\ndef test_one_axis():\n    raise ValueError('two')\n",
            "one axis': ValueErr",
        ),
        ("from json import LlavaThree  # mark.adapters\n", "it can be imported': "),
    ],
)
def test_a_test_without_cases_and_a_file_that_cannot_be_imported_are_named(
    script, tmp_path, monkeypatch, capsys, text, broken
):
    write_tests(tmp_path, adapters=text)
    monkeypatch.setattr(script, "make_overlay", lambda versions: tmp_path / "nothing")
    assert script.run_tests("oldest", {"a": "1"}) == 1
    contract, _, said = capsys.readouterr().out.splitlines()
    assert contract.startswith("oldest, contract: with a 1: 1 passed")
    assert said.startswith(f"oldest, adapters: tests/test_adapters.py breaks '{broken}")


def test_an_overlay_is_made_once_and_of_nothing_but_the_packages_named(script, pip):
    overlay = script.make_overlay({"filelock": "4.3.1", "datasets": "6.0"})
    assert script.make_overlay({"datasets": "6.0", "filelock": "4.3.1"}) == overlay
    ((no_dependencies, _, _, _, *requirements),) = pip.calls
    assert no_dependencies == "--no-deps"
    assert requirements == ["datasets==6.0", "filelock==4.3.1"]
    assert [path.name for path in overlay.parent.iterdir()] == [overlay.name]
    assert script.make_overlay({"datasets": "6.1"}) != overlay


def test_only_what_differs_is_laid_over(script, monkeypatch):
    installed = {"torch": "2.14.1+cpu", "transformers": "5.24.0"}
    monkeypatch.setattr(script, "package_version", installed.get)
    wanted = {"torch": "2.14.1", "transformers": "5.17.0", "tokenizers": "0.23.1"}
    assert script.differing(wanted) == {"transformers": "5.17.0", "tokenizers": "0.23.1"}


@pytest.mark.parametrize(
    ("newest", "allowed", "message", "runs"),
    [
        ({}, {}, "newest: the index serves nothing newer than the pins", []),
        ({"datasets": "9.0"}, {"datasets": "9.0"}, "", [{"datasets": "9.0"}]),
        (
            {"datasets": "9.0"},
            {"datasets": "8.0"},
            "newest: datasets 9.0 is out; the requirements of others allow 8.0",
            [{"datasets": "8.0"}],
        ),
        (
            {"datasets": "9.0", "filelock": "4.3.1"},
            {"filelock": "3.9"},
            "newest: pyproject.toml holds filelock 4.3.1 back: <4",
            [{"datasets": "9.0", "filelock": "3.9"}, {"datasets": "9.0", "filelock": "4.3.1"}],
        ),
    ],
)
def test_the_newest_that_is_allowed_is_tried_and_what_is_held_back_is_said(
    script, pip, monkeypatch, capsys, newest, allowed, message, runs
):
    tried = []
    dependencies = [*script.NEWEST[:-1], "filelock<4", "torch"]
    monkeypatch.setattr(
        script, "project", lambda: {"dependencies": dependencies, "optional-dependencies": {"dev": ["pytest"]}}
    )
    monkeypatch.setattr(script, "package_version", lambda name: "1.0+cpu")
    monkeypatch.setattr(script, "read_pins", lambda: {"torch": "1.0", "pytest": "1.0"})
    monkeypatch.setattr(script, "run_tests", lambda title, versions, *_, **__: tried.append(versions) or 0)
    pip.newest, pip.allowed = newest, allowed
    assert script.try_newest() == 0
    assert tried == runs
    assert capsys.readouterr().out == (f"{message}\n" if message else "")


def test_pip_that_fails_is_said_and_a_failure(script, monkeypatch, capsys):
    def fail(*arguments):
        raise script.PackageIndexError("ERROR: no network")

    monkeypatch.setattr(script, "_pip", fail)
    monkeypatch.setattr(script, "read_pins", dict)
    monkeypatch.setattr(sys, "argv", ["try_versions.py", "oldest"])
    assert script.main() == 1
    assert capsys.readouterr().out == "oldest: not run, ERROR: no network\n"
