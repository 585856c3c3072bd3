"""Dropped tokens merged into those kept, by hand and against a loop over tokens."""

import pytest
import torch
from torch.nn import functional as F

from stgridpool import NormTopK, Recycle, Step, VideoTokens, build_compressor, compress_tokens
from stgridpool.budget import BudgetError

# Norms 5, 1, 2, 4 and 1, 3, 6, 2: of two per frame 0 and 3, and 5 and 6 are kept.
MAPS = torch.tensor([[[5.0, 0], [1, 0], [0, 2], [0, 4]], [[0, 1], [3, 0], [0, 6], [2, 0]]]).view(2, 1, 4, 2)


@pytest.mark.parametrize(
    ("scope", "groups"),
    [
        ("frame", [[0, 1], [2, 3], [5, 7], [4, 6]]),
        ("video", [[0, 1, 7], [2, 3, 4], [5], [6]]),  # of equally similar ones the first
    ],
)
def test_by_hand(scope, groups):
    method = Recycle(options={"tokens_per_frame": 2}, scope=scope)
    out, plan = method(MAPS)
    assert plan.anchor.tolist() == [0, 3, 5, 6]
    torch.testing.assert_close(out, torch.stack([MAPS.view(8, 2)[group].mean(0) for group in groups]))
    assert plan.sizes().tolist() == [len(group) for group in groups]
    assert method.planned_count((2, 1, 4)) == 4


@pytest.mark.parametrize("scope", ["frame", "video"])
def test_it_equals_a_loop_over_tokens(scope):
    """Frames of 5, 0, 1 and 9 tokens, of which six are kept by chance."""
    cell = torch.cat([torch.arange(5), torch.tensor([25]), torch.arange(36, 45)])
    features = torch.randn(15, 6, generator=torch.Generator().manual_seed(0))
    tokens = VideoTokens(features, (4, 3, 4), cell)
    options = {"tokens": 6, "scope": "video", "seed": 3}
    left, plan = compress_tokens(Recycle("random", options, scope), tokens, {})
    kept = build_compressor("random", **options).plan(tokens, {}).kept().tolist()
    assert plan.anchor.tolist() == kept
    members = {token: [token] for token in kept}
    for token in set(range(15)) - set(kept):
        near = [k for k in kept if scope == "video" or cell[k] // 12 == cell[token] // 12]
        if near:
            members[max(near, key=lambda k: float(F.cosine_similarity(features[k], features[token], 0)))].append(token)
    torch.testing.assert_close(left.features, torch.stack([features[members[k]].mean(0) for k in kept]))


def test_a_frame_of_which_nothing_is_kept():
    """One token of the whole video: in scope "frame" the other frame is lost, in scope "video" everything is merged."""
    options = {"tokens": 1, "scope": "video"}
    out, plan = Recycle(options=options)(MAPS)
    assert plan.sizes().tolist() == [4]
    torch.testing.assert_close(out, MAPS[1].mean((0, 1))[None])
    torch.testing.assert_close(Recycle(options=options, scope="video")(MAPS).tokens, MAPS.mean((0, 1, 2))[None])


def test_it_stands_where_its_method_stands():
    inside = build_compressor("recycle", method="fastv", options={"retention": 0.3})
    (step,) = inside.steps()
    (own,) = build_compressor("fastv", retention=0.3).steps()
    assert step == Step(inside, own.place, own.positions, own.decode_gap, own.merges_evenly)
    assert inside.needs == build_compressor("fastv").needs
    assert inside.query_aware
    assert Recycle().other == NormTopK()
    assert Recycle(options=[["tokens", 3]]) == Recycle(options={"tokens": 3})
    nested = Recycle("per_segment", {"method": "norm_topk", "options": {"scope": "video"}, "tokens": 3})
    assert nested == Recycle("per_segment", [["method", "norm_topk"], ["options", [["scope", "video"]]], ["tokens", 3]])
    assert nested.other.options == (("scope", "video"),)
    assert len({nested, Recycle(options={"tokens": 3}), Recycle(options=(("tokens", 3),))}) == 2


def test_what_is_no_pruner_is_refused():
    with pytest.raises(ValueError, match=r"recycle needs a method that selects tokens, not average: this plan merges"):
        Recycle("average")(MAPS)
    with pytest.raises(ValueError, match="method must act once, and pyramid_drop acts 3 times"):
        Recycle("pyramid_drop", {"layers": [2, 4, 6]})
    with pytest.raises(ValueError, match="there is no compressor 'vidcom', did you mean 'vidcom2'"):
        Recycle("vidcom")
    with pytest.raises(ValueError, match="norm_topk has no option 'token', did you mean 'tokens'"):
        Recycle(options={"token": 3})
    with pytest.raises(ValueError, match="method must act on tokens, and image_grid acts before the vision tower"):
        Recycle("image_grid")
    with pytest.raises(ValueError, match="method must be text, got 5"):
        build_compressor("recycle", method=5)
    for options in (5, [1, 2], [["tokens"]], "tokens"):
        with pytest.raises(ValueError, match=r"options must be a mapping, or pairs of name and value, got "):
            build_compressor("recycle", options=options)
    with pytest.raises(ValueError, match="scope cannot be 'all'"):
        Recycle(scope="all")


def test_a_budget_that_its_method_cannot_meet_is_not_taken_for_merging():
    options = {"method": "framefusion_merge", "options": {}, "tokens": 3}
    with pytest.raises(BudgetError, match=r"^framefusion_merge keeps .*, 4 of 4, so that 2 cannot be met"):
        Recycle("per_segment", options)(MAPS)
