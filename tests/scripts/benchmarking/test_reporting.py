"""What a file of results says about its origin."""

from datetime import UTC, datetime, timedelta
from importlib import metadata

import torch
import transformers


def test_provenance_names_command_commit_date_and_versions(benchmarking, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scripts/benchmark.py", "pooling", "--output", "a file.json"])
    found = benchmarking("reporting").provenance()
    assert found["command"] == "python scripts/benchmark.py pooling --output 'a file.json'"
    assert len(found["commit"].removesuffix("-dirty")) == 40
    assert datetime.now(UTC).date() - datetime.fromisoformat(found["date"]).date() <= timedelta(days=1)
    assert found["torch"] == torch.__version__
    assert found["transformers"] == transformers.__version__


def test_a_package_that_is_not_installed_has_no_version(benchmarking, monkeypatch):
    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(benchmarking("reporting"), "version", missing)
    assert benchmarking("reporting").provenance()["triton"] is None
