"""Max pooling against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import Max


@pytest.mark.parametrize("frames", [1, 8, 19])
@pytest.mark.parametrize(
    "options",
    [{}, {"kernel_size": 3, "stride": 2}, {"ceil_mode": True}, {"kernel_size": (3, 2), "padding": 1}],
    ids=str,
)
def test_equals_torch(frames, options):
    tokens = torch.randn(frames, 7, 10, 3)
    out, plan = Max(**options)(tokens)
    expected = F.max_pool2d(tokens.permute(0, 3, 1, 2), **{"kernel_size": 2, **options})
    assert torch.equal(out.view(*plan.shape, 3), expected.permute(0, 2, 3, 1))


def test_the_plan_names_the_tokens_of_each_window():
    rows = Max()(torch.randn(1, 2, 4, 1)).plan.rows
    assert rows.sources.tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert rows.offsets.tolist() == [0, 4, 8]
    assert rows.weights.tolist() == [0.25] * 8


def test_a_window_larger_than_the_frame_is_cut_to_it():
    tokens = torch.tensor([[[[1.0], [5.0], [3.0]]]])
    assert Max(kernel_size=4)(tokens).tokens.tolist() == [[5.0]]
