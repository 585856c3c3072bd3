"""Projectors by name."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llava.model.projector import Downsample, build_projector


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("identity", set()),
        ("linear", {"weight", "bias"}),
        ("mlp1x_gelu", {"0.weight", "0.bias"}),
        ("mlp2x_gelu", {"0.weight", "0.bias", "2.weight", "2.bias"}),
        ("mlp3x_gelu", {"0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"}),
    ],
)
def test_parameter_names(name, keys):
    projector = build_projector(name, 4, 4)
    assert set(projector.state_dict()) == keys
    assert projector(torch.zeros(2, 4)).shape == (2, 4)


def test_unknown_projectors():
    with pytest.raises(ValueError, match=r"must be linear, identity, .* or mlpNx_gelu, got 'mlp2x_res2x_gelu'"):
        build_projector("mlp2x_res2x_gelu", 4, 4)


def test_every_projector_of_nvila_computes_what_the_original_does(golden):
    cases = json.loads((golden / "nvila" / "projector_cases.json").read_text())
    tensors = load_file(golden / "nvila" / "projectors.safetensors")
    for case in cases["cases"]:
        name, side = case.split(".y_")
        projector = build_projector(name, cases["mm_hidden_size"], cases["hidden_size"])
        prefix = f"{name}.weights.layers."
        weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        projector.load_state_dict(weights)
        torch.testing.assert_close(projector(tensors[f"x_{side}"]), tensors[case], rtol=0, atol=1e-5)


def test_downsampling_joins_rows_of_a_square_before_columns_and_pads_with_zeros():
    """A map of 3 x 3 patches, each of one channel, becomes 2 x 2 tokens of 4 channels."""
    patches = torch.arange(1.0, 10).view(1, 9, 1)
    joined = Downsample(2)(patches)
    assert joined.tolist() == [[[1, 2, 4, 5], [3, 0, 6, 0], [7, 8, 0, 0], [9, 0, 0, 0]]]
    assert Downsample(3)(patches).tolist() == [[[1, 2, 3, 4, 5, 6, 7, 8, 9]]]
    assert Downsample(2)(torch.zeros(5, 32 * 32, 2)).shape == (5, 256, 8)
    assert Downsample(3)(torch.zeros(5, 32 * 32, 2)).shape == (5, 121, 18)
