"""The pooling benchmark where a part of it does not fit on the device."""

import argparse

import pytest
import torch


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
    assert [row["grid"] for row in rows] == ["2x2"] * 3 + ["4x4"] * 3
    assert [row.get("left_out") for row in rows] == [None] * 3 + ["would take about 0 s"] * 3
    pooling.print_pooling(rows, arguments)
    assert "average (float32): left out: it would take about 0 s" in capsys.readouterr().out
    slow = dict(rows[0], ms=3000, calls=1, extra_memory_share=2**50)
    arguments.most_seconds = 100
    [left] = pooling._too_slow([slow, rows[1]], (2, 4, 4), "float32", arguments)
    assert left["left_out"].startswith("would need about ")  # 16 times 3 s would not be too long
