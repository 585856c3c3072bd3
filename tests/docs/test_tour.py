"""The notebook runs from the beginning to the end."""

import nbformat
import pytest
from nbclient import NotebookClient

from documents import REPOSITORY

pytestmark = pytest.mark.slow


def test_the_tour():
    notebook = nbformat.read(REPOSITORY / "docs" / "tour.ipynb", as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": REPOSITORY / "docs"}}).execute()
    printed = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in printed)
    assert "bilinear      3136 of 11664 tokens" in text  # 16 frames of 14x14 from 27x27
    assert any("image/png" in output.get("data", {}) for output in printed)
