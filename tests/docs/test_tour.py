"""The notebook runs from the beginning to the end."""

import json
from pathlib import Path

import pytest

from documents import REPOSITORY

pytestmark = pytest.mark.slow


def test_the_tour(run_python):
    program = Path(__file__).with_name("run_notebook.py")
    done = run_python(program, REPOSITORY / "docs" / "tour.ipynb", cwd=REPOSITORY / "docs")
    assert done.returncode == 0, done.stdout + done.stderr
    *text, shown = done.stdout.splitlines()
    assert "bilinear      3136 of 11664 tokens; the first is made of 4 of them" in text  # 16 x 14 x 14 of 16 x 27 x 27
    assert "image/png" in json.loads(shown)
