"""Fixtures for the tests of the scripts."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Function that imports a script of scripts/ by its name."""

    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))  # scripts import each other

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def _known_stock_tasks(stock_tasks: Path) -> None:
    """Lets commands that run in this process find the index of lmms-eval's tasks, which takes seconds to make."""
    path = Path(__file__).resolve().parents[1] / "python_server.py"
    spec = importlib.util.spec_from_file_location("python_server", path)
    assert spec is not None
    assert spec.loader is not None
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    server.remember_stock_tasks(stock_tasks)


@pytest.fixture(scope="session")
def miniature() -> Path:
    """The trained checkpoint."""
    return SCRIPTS / "nano" / "checkpoint"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, run_python) -> Path:
    """A folder to evaluate in: its data/videomme holds two clips with eight questions each for videomme_local."""
    folder = tmp_path_factory.mktemp("workplace")
    command = [str(SCRIPTS / "nano" / "make_data.py"), "data", "--clips", "2", "--needles", "0"]
    done = run_python(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder
