"""Bilinear resizing against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import Bilinear


@pytest.mark.parametrize("side", [(27, 27), (7, 7), (5, 8), (1, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, (2, 3)])
def test_equals_torch(side, stride):
    tokens = torch.randn(2, *side, 3)
    out, plan = Bilinear(stride=stride)(tokens)
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    size = (-(-side[0] // rows), -(-side[1] // columns))
    expected = F.interpolate(tokens.permute(0, 3, 1, 2), size=size, mode="bilinear")
    assert plan.shape == (2, *size)
    torch.testing.assert_close(out.view(2, *size, 3), expected.permute(0, 2, 3, 1))


def test_27_rows_become_14():
    assert Bilinear().planned_count((64, 27, 27)) == 64 * 196


def test_bad_stride():
    with pytest.raises(ValueError, match=r"stride must be a whole number from 1 to 256, or .*, got 0"):
        Bilinear(stride=0)
