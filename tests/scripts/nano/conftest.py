"""Fixtures for the miniature Video LLM: its modules, its checkpoint, and a few held-out clips with questions."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

NANO = Path(__file__).resolve().parents[3] / "scripts" / "nano"


@pytest.fixture(scope="session")
def nano() -> Callable[[str], ModuleType]:
    """Function that imports a module of scripts/nano/miniature by its name."""
    if str(NANO.parent) not in sys.path:
        sys.path.append(str(NANO.parent))
    return lambda name: importlib.import_module(f"nano.miniature.{name}")


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The trained checkpoint."""
    return NANO / "checkpoint"


@pytest.fixture(scope="session")
def clips_folder(nano, tmp_path_factory) -> Path:
    """Eight held-out clips with 64 questions as a Video-MME-like set; none of them is in the published numbers."""
    folder = tmp_path_factory.mktemp("clips")
    nano("make_data").write_videomme(folder, 8, (12, 16), seed=77)
    return folder
