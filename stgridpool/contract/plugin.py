"""The option ``--method`` of pytest, which exists only where the contract tests are asked for."""

from __future__ import annotations

import pytest

PACKAGE = "stgridpool.contract"


def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """Add the option before pytest reads the command line for good; other projects keep the name for themselves."""
    if any(argument.startswith(PACKAGE) for argument in args):
        parser.addoption(
            "--method",
            action="append",
            metavar="MODULE:CLASS",
            help="method of the contract tests, by place or name; may be repeated (default: all of ours)",
        )
