"""Random pruning: counts, scopes, seeds, and that chance is even."""

import pytest
import torch

from stgridpool import Random, VideoTokens


def kept(method, *shape):
    return method(torch.zeros(*shape, 1)).plan.kept()


@pytest.mark.parametrize("scope", ["frame", "video", "stratified"])
@pytest.mark.parametrize(("budget", "count"), [({"tokens": 13}, 13), ({"retention": 0.7}, 42), ({}, 15)])
def test_every_scope_meets_the_budget(scope, budget, count):
    method = Random(scope=scope, **budget)
    index = kept(method, 5, 3, 4)
    assert len(index) == len(index.unique()) == method.planned_count((5, 3, 4)) == count
    assert torch.equal(index, index.sort().values)


def test_scopes():
    per_frame = torch.bincount(kept(Random(tokens=31), 4, 5, 5) // 25, minlength=4)
    assert per_frame.tolist() == [8, 8, 7, 8]
    blocks = kept(Random(tokens=30, scope="stratified"), 4, 5, 5) * 30 // 100
    assert blocks.tolist() == list(range(30))  # one of each of 30 blocks of 3 or 4
    whole = torch.bincount(kept(Random(tokens=20, scope="video"), 4, 5, 5) // 25, minlength=4)
    assert whole.sum() == 20
    many = [torch.bincount(kept(Random(tokens=20, scope="video", seed=seed), 4, 5, 5) // 25) for seed in range(9)]
    assert any(counts.tolist() != [5, 5, 5, 5] for counts in many)


def test_the_seed_decides_and_nothing_else():
    torch.manual_seed(1)
    first = kept(Random(seed=5), 6, 4, 4)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert torch.equal(kept(Random(seed=5), 6, 4, 4), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(kept(Random(seed=6), 6, 4, 4), first)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(5))
    assert kept(Random(seed=5, scope="video", tokens=10), 6, 4, 4).tolist() == sorted(order.argsort()[-10:].tolist())


@pytest.mark.parametrize("scope", ["frame", "video", "stratified"])
def test_every_token_is_kept_as_often(scope):
    """300 seeds, a quarter kept: 75 expected for each token, with a standard deviation of 7.5."""
    counts = torch.zeros(32)
    for seed in range(300):
        counts[kept(Random(scope=scope, seed=seed), 2, 4, 4)] += 1
    assert counts.sum() == 300 * 8
    assert 75 - 5 * 7.5 < float(counts.min()) <= float(counts.max()) < 75 + 5 * 7.5


def test_frames_of_different_sizes_and_blocks_of_what_is_there():
    cell = torch.tensor([0, 1, 2, 3, 9])
    tokens = VideoTokens(torch.zeros(5, 1), (3, 2, 2), cell)
    index = Random(tokens=4).plan(tokens, {}).kept()
    assert len(index) == 4
    assert 4 in index  # the only one of its frame
    assert Random(tokens=5, scope="stratified").plan(tokens, {}).kept().tolist() == [0, 1, 2, 3, 4]


def test_bad_options():
    with pytest.raises(ValueError, match="seed must be a whole number from 0 to 2147483647, got -1"):
        Random(seed=-1)
    with pytest.raises(ValueError, match=r"scope cannot be 'stratum'.*stratified"):
        Random(scope="stratum")
