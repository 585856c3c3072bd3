"""Fixtures for the miniature Video LLM: its modules, its checkpoint, and a few held-out clips with questions."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

NANO = Path(__file__).resolve().parents[3] / "scripts" / "nano"
COMMANDS = ("evaluate", "make_data", "train")


@pytest.fixture(scope="session")
def nano() -> Callable[[str], ModuleType]:
    """Function that imports a module of scripts/nano by its name; they import each other as scripts do.

    Commands are imported under names of their own: `evaluate` is also an installed package.
    """
    if str(NANO) not in sys.path:
        sys.path.append(str(NANO))

    @cache
    def load(name: str) -> ModuleType:
        if name not in COMMANDS:
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(f"nano_{name}", NANO / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The trained checkpoint."""
    return NANO / "checkpoint"


@pytest.fixture(scope="session")
def clips_folder(nano, tmp_path_factory) -> Path:
    """Twelve held-out clips with 96 questions as a Video-MME-like set; none of them is in the published numbers."""
    folder = tmp_path_factory.mktemp("clips")
    nano("make_data").write_videomme(folder, 12, (12, 16), seed=77)
    return folder
