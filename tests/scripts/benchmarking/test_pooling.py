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
