"""The wheel passes `twine check` and holds every file of the packages."""

import re
import shutil
import zipfile

import pytest

from documents import REPOSITORY

FOLDERS = {
    "stgridpool": "stgridpool",
    "llava": "llava",
    "lmms_eval/stgridpool": "lmms_eval_stgridpool",
    "custom_tasks": "lmms_eval_stgridpool/custom_tasks",
}
pytestmark = pytest.mark.slow


def files(folder):
    """Files of a source folder, by their paths in it."""
    paths = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(REPOSITORY / folder)) for path in paths if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, run_python):
    """Built from a copy, since building leaves files in its folder; with the setuptools of the environment."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for folder in FOLDERS:
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    done = run_python("-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (source / "dist").iterdir()
    return found


def test_twine_accepts_it(wheel, run_python):
    done = run_python("-m", "twine", "check", "--strict", wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


def test_it_holds_every_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in FOLDERS.items():
        missing = {name for name in files(folder) if f"{package}/{name}" not in names}
        assert not missing, folder


def test_it_holds_the_command(wheel):
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert re.search(r"^stgridpool ?= ?lmms_eval_stgridpool\.cli\.app:main$", archive.read(entry_points).decode(), re.M)
