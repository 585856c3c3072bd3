"""Fractions of values that stand out, by hand."""

import torch

from stgridpool.algorithms.outliers import outlier_shares


def test_quartiles_are_interpolated_in_each_set():
    """1, 2, 3, 4 and x have quartiles 2 and 4: x stands out above 7. 1 and 9: 3 and 7, so nothing does."""
    values = torch.tensor([[3.0, 7.1, 1.0, 2.0, 4.0], [7.0, 4.0, 3.0, 2.0, 1.0], [9.0, 1.0, 99.0, 99.0, 99.0]])
    is_there = torch.tensor([[True] * 5, [True] * 5, [True, True, False, False, False]])
    assert outlier_shares(values, is_there) == [0.2, 0.0, 0.0]
    assert outlier_shares(values, is_there & torch.tensor([[True], [True], [False]])) == [0.2, 0.0, 0.0]
