"""The benchmark command: what it prints, and the claims that hold on any machine."""

import json
import math
import time
from pathlib import Path

import pytest
import torch

from stgridpool import COMPRESSORS, build_compressor

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = {"method", "device", "dtype", "ms", "ratio_to_average", "copy_bandwidth_share", "extra_memory_share"}


@pytest.fixture(scope="module")
def run(run_python):
    """Function that runs a measurement on the CPU; returns what it prints."""

    def run(*arguments: str, name: str = "pooling") -> str:
        done = run_python("scripts/benchmark.py", name, "--device", "cpu", *arguments, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_json_rows(run):
    rows = json.loads(run("--frames", "9", "--grid", "6", "5", "--width", "16", "--rounds", "1", "--json"))
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    assert {row["method"] for row in rows} == {*COMPRESSORS, "nsp, unfolded"}
    assert len(rows) == 2 * (len(COMPRESSORS) + 1)
    assert all(row.keys() >= KEYS for row in rows)
    assert all(row["ratio_to_average"] == 1 for row in rows if row["method"] == "average")
    moved = next(row["bytes_moved"] for row in rows if (row["method"], row["dtype"]) == ("average", "float32"))
    assert moved == 9 * (6 * 5 + 3 * 2) * 16 * 4


def test_table(run):
    table = run("--frames", "4", "--grid", "4", "4", "--width", "8", "--rounds", "1", "--methods", "nsp", "average")
    assert "4 frames of 4x4 random tokens of width 8" in table
    assert "nsp, unfolded" in table


def test_ratio_to_a_decoder_layer(run, tmp_path):
    arguments = ("--frames", "8", "--grid", "6", "6", "--width", "384", "--rounds", "2", "--dtypes", "float32")
    arguments += ("--methods", "sttm", "--decoder-layer", "tiny", "--output", str(tmp_path / "rows.json"))
    assert "a tiny decoder" in run(*arguments).replace("\n", " ")
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["decoder_layer_ratio"] > 0


def test_clips_of_many_lengths(run):
    sizes = ("--clips", "12", "--frames", "3", "9", "--grid", "4", "3", "--width", "2", "--rounds", "1")
    rows = json.loads(run(*sizes, "--json", name="layouts"))
    names = "none average bilinear adaptive_pool max nsp ptg st_gridpool temporal_average downsample"
    assert [row["method"] for row in rows] == names.split()
    for row in rows:
        assert row["ratio"] == pytest.approx(row["seconds_many_lengths"] / row["seconds_one_length"], rel=0.2)


@pytest.mark.slow
def test_little_memory(run):
    arguments = ("--width", "2048", "--dtypes", "float32", "--rounds", "1", "--json", "--methods", "nsp", "st_gridpool")
    rows = [row for row in json.loads(run(*arguments)) if row["method"] != "nsp, unfolded"]
    assert len(rows) == 2
    for row in rows:
        assert row["extra_memory_share"] < 0.25, row


@pytest.mark.slow
def test_faster_than_unfolding(load_script):
    """18 to 28 times faster; time of the processor counts, which others on the machine do not take."""
    load_script("benchmark")  # puts the folder of its modules on the path
    from benchmarking.unfolding import unfolded_nsp

    tokens = torch.randn(32, 27, 27, 1024)
    nsp, full = build_compressor("nsp"), build_compressor("st_gridpool")
    torch.testing.assert_close(nsp(tokens).tokens, unfolded_nsp(tokens).tokens)
    best = {"nsp": math.inf, "st_gridpool": math.inf, "unfolded": math.inf}
    for _ in range(4):
        for name, call in (("nsp", nsp), ("st_gridpool", full), ("unfolded", unfolded_nsp)):
            started = time.process_time()
            call(tokens)
            best[name] = min(best[name], time.process_time() - started)
    assert 3 * best["nsp"] < best["unfolded"], best
    assert best["st_gridpool"] < best["unfolded"], best
