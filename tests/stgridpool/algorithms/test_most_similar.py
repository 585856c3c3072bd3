"""The most similar of the tokens kept, in blocks and at once."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool.algorithms import most_similar as module
from stgridpool.algorithms.most_similar import most_similar, most_similar_in_set
from stgridpool.algorithms.sets import Sets


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_blocks_of_any_size(most, monkeypatch):
    for name in ("MOST_ENTRIES", "_FEATURES_ON_CPU"):
        monkeypatch.setattr(module, name, most)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 5, generator=generator)
    is_kept = torch.rand(30, generator=generator) > 0.6
    group = torch.tensor([0] * 4 + [1] * 7 + [2] * 1 + [3] * 18)[torch.randperm(30, generator=generator)]
    is_kept[group == 2] = False
    cosine = F.cosine_similarity(features[:, None], features, dim=2).masked_fill(~is_kept, -2)
    kept, dropped = is_kept.nonzero().flatten(), (~is_kept).nonzero().flatten()
    assert torch.equal(kept[most_similar(features, dropped, kept)], cosine[dropped].argmax(1))
    sets = Sets.of(group, torch.tensor([4, 7, 1, 18]))
    expected = cosine.masked_fill(group[:, None] != group, -2).argmax(1).masked_fill(group == 2, -1)
    assert torch.equal(most_similar_in_set(features, sets, is_kept), expected)


def test_the_first_of_equals_and_zeros():
    """Tokens 1 and 2 have one direction; a token of zeros is equally unlike all."""
    features = torch.tensor([[1.0, 0], [0, 1], [0, 3], [0, 2], [0, 0]])
    kept = torch.tensor([0, 1, 2])
    assert most_similar(features, torch.tensor([3, 4]), kept).tolist() == [1, 0]
    sets = Sets.of(torch.zeros(5, dtype=torch.int64), torch.tensor([5]))
    is_kept = torch.tensor([True, True, True, False, False])
    assert most_similar_in_set(features, sets, is_kept).tolist() == [0, 1, 2, 1, 0]
