"""Run every contract test on every method."""

from __future__ import annotations

import pytest

from stgridpool.contract.cases import methods_to_test


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of these tests, which other projects do not know."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped without one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the methods that ``--method`` names, or all."""
    if "compressor" in metafunc.fixturenames:
        methods = methods_to_test(*(metafunc.config.getoption("--method", default=None) or ()))
        metafunc.parametrize("compressor", methods.values(), ids=list(methods))
