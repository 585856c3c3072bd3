"""Other weights have other digests."""

import torch

from stgridpool.weights_digest import weights_digest


def test_one_weight_makes_another_tower():
    tower = torch.nn.Linear(3, 2)
    before = weights_digest(tower)
    assert weights_digest(tower) == before
    with torch.no_grad():
        tower.bias[1] += 1
    changed = weights_digest(tower)
    assert changed != before
    assert weights_digest(tower.half()) != changed
    assert weights_digest(torch.nn.Linear(2, 2, device="meta")) is None
