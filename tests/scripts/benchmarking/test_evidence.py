"""The benchmark of evidence, on a tower of a few channels."""

from argparse import Namespace

import pytest

from llava.model import known_towers

TINY = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 27,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
}


@pytest.fixture
def arguments(monkeypatch):
    monkeypatch.setitem(known_towers.KNOWN_GEOMETRY, "google/siglip-so400m-patch14-384", TINY)
    return Namespace(layers=13, images=2, device="cpu", dtype="float32", rounds=1)


def test_rows(benchmarking, arguments, capsys):
    evidence = benchmarking("evidence")
    rows = evidence.benchmark_evidence(arguments)
    assert [row["evidence"] for row in rows] == ["features alone", "attention received", "keys", "pooling head"]
    assert rows[0]["more_time"] == 0
    for row in rows:
        assert row["more_time_of_26_layers"] == pytest.approx(row["more_time"] / 2, abs=1e-4)
    evidence.print_evidence(rows, arguments)
    assert "2 images through 13 layers" in " ".join(capsys.readouterr().out.split())
