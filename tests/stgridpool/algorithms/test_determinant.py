"""Greedy choices of largest determinant, by hand and against determinants."""

import torch

from stgridpool.algorithms.determinant import largest_determinant


def test_choices_by_hand():
    """The example of OpenVINO's tests: 1 has 0.9; then 0 has 0.8 - 0.09 / 0.9 = 0.7; then 3."""
    kernel = torch.tensor([[[0.8, 0.3, 0.1, 0.2], [0.3, 0.9, 0.4, 0.1], [0.1, 0.4, 0.7, 0.5], [0.2, 0.1, 0.5, 0.6]]])
    assert largest_determinant(kernel, torch.ones(1, 4, dtype=torch.bool), 3).tolist() == [[1, 0, 3]]


def test_each_choice_enlarges_the_determinant_most():
    """Two sets at once, of which the second has 5 members."""
    vectors = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = vectors @ vectors.mT
    is_there = torch.ones(2, 9, dtype=torch.bool)
    is_there[1, 5:] = False
    for one, size, order in zip(kernel, (9, 5), largest_determinant(kernel, is_there, 4).tolist(), strict=True):
        taken = []
        for best in order:
            dets = [torch.det(one[[*taken, i]][:, [*taken, i]]) if i not in taken else -1.0 for i in range(size)]
            assert max(range(size), key=dets.__getitem__) == best
            taken.append(best)


def test_members_follow_in_order_where_nothing_is_gained():
    kernel = torch.ones(1, 4, 4)
    kernel[0, 3] = kernel[0, :, 3] = 0
    assert largest_determinant(kernel, torch.ones(1, 4, dtype=torch.bool), 4).tolist() == [[0, 1, 2, 3]]
