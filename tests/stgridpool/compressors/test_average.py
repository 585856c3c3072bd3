"""Average pooling against torch's own and by hand."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import Average


@pytest.mark.parametrize("side", [(27, 27), (7, 10), (4, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": (2, 4)},
        {"ceil_mode": True},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True},
        {"kernel_size": 1, "stride": 3},
    ],
    ids=str,
)
def test_equals_torch(side, options):
    tokens = torch.randn(2, *side, 3)
    out, plan = Average(**options)(tokens)
    settings = {"kernel_size": 2, **options}
    expected = F.avg_pool2d(tokens.permute(0, 3, 1, 2), **settings, count_include_pad=False)
    assert plan.shape == (2, *expected.shape[2:])
    torch.testing.assert_close(out.view(*plan.shape, 3), expected.permute(0, 2, 3, 1))


def test_27_rows_become_13_or_14():
    assert Average().planned_shape((64, 27, 27)) == (64, 13, 13)
    assert Average(ceil_mode=True).planned_shape((64, 27, 27)) == (64, 14, 14)


@pytest.mark.parametrize(("kernel", "count"), [(2, 4 * 9), ((2, 3), 4 * 6), (3, 4 * 4), (6, 4)])
def test_other_rates_come_from_the_kernel(kernel, count):
    assert Average(kernel_size=kernel).planned_count((4, 6, 6)) == count


def test_a_window_larger_than_the_frame_is_cut_to_it():
    tokens = torch.tensor([[[[1.0], [2.0], [6.0]]]])  # one frame of 1x3
    assert Average(kernel_size=5)(tokens).tokens.tolist() == [[3.0]]
    assert Average(kernel_size=2)(tokens).tokens.tolist() == [[1.5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be a whole number from 1 to 256, or .*, got 0"),
        ({"kernel_size": (2, 2, 2)}, r"got \(2, 2, 2\)"),
        ({"kernel_size": 2.5}, "got 2.5"),
        ({"kernel_size": "2"}, "got '2'"),
        ({"kernel_size": 10**9}, "got 1000000000"),  # it would be cut to the frame, but recorded as it came
        ({"kernel_size": True}, "got True"),
        ({"stride": (2, False)}, r"got \(2, False\)"),
        ({"ceil_mode": "false"}, r"ceil_mode must be True or False \(in JSON true or false\), got 'false'"),
        ({"ceil_mode": 1}, "ceil_mode must be True or False .*, got 1"),
        ({"stride": 0}, "stride must be a whole number from 1 to 256"),
        ({"padding": -1}, "padding must be a whole number from 0 to 256"),
        ({"padding": 2}, "padding must be at most half of kernel_size=2, got 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Average(**options)
