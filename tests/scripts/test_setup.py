"""setup.sh installs what constraints.txt pins, once, and again when what is asked for has changed."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = """#!/usr/bin/env bash
# In place of Python: notes how it is called, makes environments of copies of itself, and installs nothing.
echo "$*" >>"{log}"
if [[ "$*" == "-m venv"* ]]; then
  mkdir -p "${{!#}}/bin"
  cp "$0" "${{!#}}/bin/python"
elif [[ "$*" == "-m pip --version" ]]; then
  {pip}
elif [[ "$*" == "-m pip install"*--editable* ]]; then
  echo "Collecting everything"
  {installing}
fi
"""


@pytest.fixture
def project(tmp_path):
    """A copy of what setup.sh reads; `calls` runs it and returns status, messages and the calls of pip install."""
    root, tools = tmp_path / "project", tmp_path / "tools"
    (root / "scripts").mkdir(parents=True)
    tools.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
        shutil.copy(REPOSITORY / name, root / name)

    def run(installing="true", pip="true"):
        log = tmp_path / "log"
        log.write_text("")
        (tools / "python3").write_text(PYTHON.format(log=log, installing=installing, pip=pip))
        (tools / "python3").chmod(0o755)
        if (root / ".venv").exists():
            shutil.copy(tools / "python3", root / ".venv" / "bin" / "python")
        done = subprocess.run(
            ["bash", str(root / "scripts" / "setup.sh")],
            env={"PATH": f"{tools}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done, [line for line in log.read_text().splitlines() if line.startswith("-m pip install")]

    return root, run


def test_everything_is_installed_in_the_pinned_versions_and_compiled(project, tmp_path):
    root, run = project
    done, calls = run()
    assert done.returncode == 0, done.stderr
    pins = root / "constraints.txt"
    assert calls == [
        f"-m pip install --quiet --constraint {pins} --upgrade pip",
        f"-m pip install --no-compile --constraint {pins} --build-constraint {pins} --editable .[dev]",
    ]
    assert (tmp_path / "log").read_text().splitlines()[-1] == f"-m compileall -qq -j 0 {root}/.venv/lib"
    assert "Collecting" not in done.stdout + done.stderr  # pip's own progress is not for the reader


@pytest.mark.parametrize("changed", [None, "pyproject.toml", "constraints.txt"])
def test_it_is_done_again_only_where_what_is_asked_for_has_changed(project, changed):
    root, run = project
    run()
    if changed:
        with open(root / changed, "a") as file:
            file.write("# another line\n")
    assert len(run()[1]) == (2 if changed else 0)
    assert run()[1] == []


def test_a_failed_installation_fails_and_is_begun_anew(project):
    _, run = project
    done, _ = run(installing="exit 3")
    assert done.returncode == 3
    done, calls = run()
    assert done.returncode == 0
    assert "making" in done.stderr
    assert len(calls) == 2


def test_an_environment_of_others_is_not_deleted(project):
    root, run = project
    other = root / ".venv" / "lib" / "module.py"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    (root / ".venv" / "bin").mkdir()
    done, calls = run(pip="exit 1")  # as in environments that uv makes
    assert done.returncode == 1
    assert f"setup.sh: {root}/.venv has no working pip and was not made here" in done.stderr
    assert calls == []
    assert other.read_text() == "mine"
    (root / ".venv" / "unfinished").touch()
    done, calls = run()
    assert done.returncode == 0
    assert not other.exists()
    assert len(calls) == 2
