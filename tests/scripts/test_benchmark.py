"""The benchmark command: what it prints, and the claims that hold on any machine."""

import json
import math
import time
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

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
    rows = json.loads(run("--all", "--frames", "9", "--grid", "6", "5", "--width", "16", "--rounds", "1", "--json"))
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    assert {row["method"] for row in rows} == {*COMPRESSORS, "nsp, unfolded"}
    assert len(rows) == 2 * (len(COMPRESSORS) + 1)
    assert all(row.keys() >= KEYS for row in rows)
    assert all(row["ratio_to_average"] == 1 for row in rows if row["method"] == "average")
    moved = next(row["bytes_moved"] for row in rows if (row["method"], row["dtype"]) == ("average", "float32"))
    assert moved == 9 * (6 * 5 + 3 * 2) * 16 * 4


def test_table(run):
    sizes = ("--frames", "4", "--grid", "4", "4", "--width", "8", "--rounds", "1", "--dtypes", "float32")
    table = run(*sizes, "--methods", "nsp", "average")
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
    names = "none image_grid average bilinear adaptive_pool max nsp ptg st_gridpool temporal_average downsample"
    assert [row["method"] for row in rows] == names.split()
    for row in rows:
        assert row["ratio"] == pytest.approx(row["seconds_many_lengths"] / row["seconds_one_length"], rel=0.2)


def most_held(call, folder):
    """Bytes that torch's allocator holds at most during `call` beyond those before and those of the tokens made."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        made = call().tokens
    trace.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return max(accumulate(change for _, change in changes)) - made.numel() * made.element_size()


@pytest.mark.parametrize(("name", "mosaics"), [("nsp", 0), ("st_gridpool", 4 + 2 + 1)])
def test_little_memory(name, mosaics, tmp_path):
    """Beyond input and output only the mosaics of windows of 8, 16 and 32 frames, weights and indices."""
    tokens, compressor = torch.randn(32, 27, 27, 512), build_compressor(name)
    compressor(tokens)  # layouts of this size are made, and kept
    share = most_held(lambda: compressor(tokens), tmp_path) / (tokens.numel() * tokens.element_size())
    assert mosaics / 32 <= share < mosaics / 32 + 0.02


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_extra_memory_is_that_beyond_input_and_output(load_script):
    load_script("benchmark")  # puts the folder of its modules on the path
    from benchmarking.pooling_rows import extra_memory

    tokens = torch.zeros(1)

    def call():
        held = torch.ones(25_000_000)
        return SimpleNamespace(tokens=held[:10_000_000] + 1)

    extra_memory(call, tokens)  # what is loaded on first use stays
    assert extra_memory(call, tokens) == pytest.approx(100e6, rel=0.1)


@pytest.mark.slow
def test_faster_than_unfolding(load_script):
    """Ten times faster, and 18 to 28 times on 32 frames.

    Time of the processor counts, which others on the machine do not take.
    """
    load_script("benchmark")  # puts the folder of its modules on the path
    from benchmarking.unfolding import unfolded_nsp

    tokens = torch.randn(8, 27, 27, 1024)
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
