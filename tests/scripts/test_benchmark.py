"""The benchmark command: what it prints, and the claims that hold on any machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = {"method", "device", "dtype", "ms", "ratio_to_average", "copy_bandwidth_share", "extra_memory_share"}


def run(*arguments: str) -> str:
    command = [sys.executable, "scripts/benchmark.py", "pooling", "--device", "cpu", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def test_json_rows():
    rows = json.loads(run("--frames", "9", "--grid", "6", "5", "--width", "16", "--rounds", "1", "--json"))
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    assert len({row["method"] for row in rows}) == len(rows) / 2 == 7
    assert all(row.keys() >= KEYS for row in rows)
    assert all(row["ratio_to_average"] == 1 for row in rows if row["method"] == "average")
    moved = next(row["bytes_moved"] for row in rows if (row["method"], row["dtype"]) == ("average", "float32"))
    assert moved == 9 * (6 * 5 + 3 * 2) * 16 * 4


def test_table():
    table = run("--frames", "4", "--grid", "4", "4", "--width", "8", "--rounds", "1", "--methods", "nsp", "average")
    assert "4 frames of 4x4 random tokens of width 8" in table
    assert "nsp" in table


@pytest.mark.slow
def test_one_pass_and_little_memory():
    """The bounds are twice those claimed for a quiet machine; the unfold form of the original is beyond them."""
    arguments = ("--frames", "64", "--width", "1024", "--dtypes", "float32", "--rounds", "5", "--json")
    rows = {row["method"]: row for row in json.loads(run(*arguments, "--methods", "average", "nsp", "st_gridpool"))}
    assert rows["nsp"]["ratio_to_average"] < 4
    assert rows["st_gridpool"]["ratio_to_average"] < 6
    assert rows["nsp"]["extra_memory_share"] < 0.25
    assert rows["st_gridpool"]["extra_memory_share"] < 0.25
