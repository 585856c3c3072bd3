"""The benchmark's modules, imported as its command imports them."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture(scope="session")
def benchmarking() -> Callable[[str], ModuleType]:
    """Function that imports a module of scripts/benchmarking by its name."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    return lambda name: importlib.import_module(f"benchmarking.{name}")


@pytest.fixture(scope="session")
def small(benchmarking):
    """Geometry of a model that takes no time."""
    return benchmarking("geometry").Geometry(
        image_size=56,
        vision_width=32,
        vision_inner=48,
        vision_layers=3,
        vision_heads=2,
        width=64,
        inner=96,
        layers=2,
        heads=4,
        key_value_heads=2,
        vocabulary=2048,
    )
