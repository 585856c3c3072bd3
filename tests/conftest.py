"""Fixtures for the whole suite."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def _golden_root() -> Path:
    """Numbers computed by the original code: a copy beside the checkout is preferred, the shipped one is equal."""
    beside = REPOSITORY.parent / "shared" / "golden"
    return beside if beside.is_dir() else REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with the golden numbers, one subfolder per original system; each has a README.md."""
    return _golden_root()
