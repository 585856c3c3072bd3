"""Projectors by name."""

import pytest
import torch

from llava.model.projector import build_projector


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
    with pytest.raises(ValueError, match="must be linear, identity or mlpNx_gelu, got 'mlp2x_res2x_gelu'"):
        build_projector("mlp2x_res2x_gelu", 4, 4)
