"""Run every contract test on every method."""

from __future__ import annotations

import pytest

from stgridpool.contract.cases import methods_to_test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the methods that ``--method`` names, or all."""
    if "compressor" in metafunc.fixturenames:
        methods = methods_to_test(metafunc.config.getoption("--method", default=None))
        metafunc.parametrize("compressor", methods.values(), ids=list(methods))
