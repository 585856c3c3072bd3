"""Commands run in the process of the tests, whose logging and environment they leave alone."""

import pytest


@pytest.fixture(autouse=True)
def _own_process(monkeypatch):
    for name in ("quiet", "offline"):
        monkeypatch.setattr(f"lmms_eval_stgridpool.cli.quiet.{name}", lambda: None)
