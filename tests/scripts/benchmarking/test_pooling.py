"""The pooling benchmark where a part of it does not fit on the device."""

import argparse

import pytest
import torch

from stgridpool import build_compressor


@pytest.mark.parametrize("fits", [True, False])
def test_a_decoder_layer_that_does_not_fit_has_no_ratio(fits, benchmarking, monkeypatch, capsys):
    pooling = benchmarking("pooling")

    def layer():
        if not fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(benchmarking("decoder_layer"), "decoder_layer_call", lambda *sizes: layer)
    parser = argparse.ArgumentParser()
    pooling.add_parser(parser.add_subparsers())
    options = "pooling --device cpu --methods average --frames 2 --grid 4 4 --width 8 --rounds 1 --decoder-layer tiny"
    arguments = parser.parse_args(options.split())
    rows = pooling.benchmark_pooling(arguments)
    assert [row["decoder_layer_ratio"] is None for row in rows] == [not fits] * 2
    pooling.print_pooling(rows, arguments)
    assert ("does not fit" in " ".join(capsys.readouterr().out.split())) is not fits


def test_methods_that_would_take_too_long_are_left_out_of_the_next_grid(benchmarking, capsys):
    pooling = benchmarking("pooling")
    parser = argparse.ArgumentParser()
    pooling.add_parser(parser.add_subparsers())
    options = "pooling --device cpu --methods average nsp --frames 2 --grid 2 2 --grid 4 4 --width 8 --rounds 1"
    arguments = parser.parse_args([*options.split(), "--dtypes", "float32", "--most-seconds", "0"])
    rows = pooling.benchmark_pooling(arguments)
    assert [row["reads"] for row in rows[:3]] == [1, 2, None]  # unfolding windows copies them
    assert [(row["order"], row["compares"]) for row in rows[:3]] == [("N D", None)] * 2 + [(None, None)]
    assert [row["grid"] for row in rows] == ["2x2"] * 3 + ["4x4"] * 3
    assert [row.get("left_out") for row in rows] == [None] * 3 + ["would take about 0 s"] * 3
    pooling.print_pooling(rows, arguments)
    assert "average (float32): left out: it would take about 0 s" in capsys.readouterr().out


def test_a_method_left_out_of_a_grid_stays_out_of_larger_ones(benchmarking, monkeypatch):
    """It is judged by the last grid on which it was timed."""
    pooling = benchmarking("pooling")
    parser = argparse.ArgumentParser()
    pooling.add_parser(parser.add_subparsers())
    grids = "--grid 2 2 --grid 4 4 --grid 6 6"
    options = f"pooling --device cpu --methods average --frames 2 {grids} --width 8 --rounds 1 --dtypes float32"
    arguments = parser.parse_args([*options.split(), "--most-seconds", "0"])
    rows = pooling.benchmark_pooling(arguments)
    assert ["left_out" in row for row in rows] == [False, True, True]


def test_time_and_memory_of_the_next_grid_follow_from_the_order_of_the_work(benchmarking):
    limits = benchmarking("pooling_limits")
    parser = argparse.ArgumentParser()
    benchmarking("pooling").add_parser(parser.add_subparsers())
    options = "pooling --device cpu --frames 2 --grid 4 4 --width 8 --dtypes float32 --most-seconds 20"
    arguments = parser.parse_args(options.split())

    def reason(method, ms, extra_memory_share=0.0):
        row = {"method": method, "grid": "2x2", "ms": ms, "extra_memory_share": extra_memory_share}
        return [left["left_out"] for left in limits.too_slow([row], (2, 4, 4), "float32", arguments)]

    assert reason("average", 4999) == []
    assert reason("average", 5100) == ["would take about 20 s"]  # 4 times the tokens
    for method in ("tome", "divprune"):  # 16 times the pairs
        assert reason(method, 1200) == []
        assert reason(method, 2000) == ["would take about 32 s"]
    share = limits._memory(torch.device("cpu")) / (2 * 4 * 8 * 4)  # of the input of 256 bytes: all memory
    for method, times in (("average", 4), ("tome", 4), ("divprune", 16)):
        assert reason(method, 1, share * 0.4 / times) == []
        assert reason(method, 1, share * 0.6 / times)[0].startswith("would need about ")


def test_ratios_are_to_the_time_in_the_row_of_average(benchmarking, monkeypatch):
    """`average` is timed once, whether or not it is among the methods."""
    rows, tokens = benchmarking("pooling_rows"), torch.randn(2, 4, 4, 8)
    cases = [rows.Case(name, build_compressor(name)) for name in ("max", "average")]
    timed = []

    def best_ms(calls, *_):  # of copying, and then in the order of the calls
        timed.append(len(calls))
        return [1.0, 6.0, 2.0]

    monkeypatch.setattr(rows, "best_ms", best_ms)
    for number in (2, 1):
        found = rows.time_methods(cases[:number], tokens, "float32", rows.Timing(1))
        assert [(row["ms"], row["ratio_to_average"]) for row in found] == [(6.0, 3.0), (2.0, 1.0)][:number]
    assert timed == [3, 3]
