"""Methods of two halves: budgets, layers, and the front half alone; by the example of FlashVID."""

import pytest
import torch

from stgridpool import FlashVID, build_compressor, compress_tokens
from stgridpool.compressor import planned_counts
from stgridpool.evidence import AttentionReceived, QueryAttention
from stgridpool.video_tokens import VideoTokens


def test_a_mean_over_layers_is_split():
    """FlashVID's own numbers: 10 % on average is 12.5 % for 20 layers and 3.75 % for 8."""
    settled = FlashVID(layer_average=0.1).for_depth(28)
    assert (settled.layer, settled.layer_average) == (20, None)
    assert settled.retention == pytest.approx(0.125)
    assert settled.inner_retention == pytest.approx(0.3)
    full = FlashVID(layer_average=0.9).for_depth(28)  # 1.125 does not fit before the layer: the inner half gives way
    assert full.retention == 1
    assert full.inner_retention == pytest.approx((0.9 * 28 - 20) / 8)
    assert FlashVID(layer_average=1).for_depth(28).inner_retention == 1


def test_layers_follow_the_depth():
    assert FlashVID().for_depth(80).layer == 57
    assert FlashVID().for_depth(2).layer == 1
    assert FlashVID(layer=5).for_depth(80).layer == 5
    with pytest.raises(ValueError, match="layer must be at least 1 and below the model's 4 layers, got 5"):
        FlashVID(layer=5).for_depth(4)
    with pytest.raises(ValueError, match="below the model's 1 layers, got 1"):
        FlashVID().for_depth(1)


def test_counts_of_both_halves():
    method = build_compressor("flashvid", tokens_per_frame=5, inner_retention=0.5)
    assert planned_counts(method.steps(), (3, 4, 4)) == [15, 7]
    assert method.planned_count((3, 4, 4)) == 7
    tokens = VideoTokens.of(torch.randn(3, 4, 4, 6))
    evidence = {AttentionReceived(): torch.rand(48), QueryAttention(19): torch.arange(48.0)}
    left, plan = compress_tokens(method, tokens, evidence)
    assert left.before == (48, 15)
    front, front_plan = compress_tokens(
        build_compressor("flashvid", tokens_per_frame=5, inner_retention=1), tokens, evidence
    )
    attention = front_plan.mean(torch.arange(48.0)[:, None])[:, 0]  # merged tokens get the mean of theirs
    kept = attention.argsort(descending=True)[:7].sort().values
    assert torch.equal(plan.anchor, front_plan.anchor[kept])
    assert torch.equal(left.features, front.features[kept])
    assert torch.equal(method.plan(tokens, evidence).anchor, plan.anchor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_average": 0.5, "tokens": 4}, r"got \{'tokens': 4, 'layer_average'"),
        ({"layer_average": 1.5}, "layer_average must be a number above 0 and at most 1"),
        ({"inner_retention": 0}, "inner_retention must be a number above 0"),
        ({"layer": 0}, "layer must be a whole number from 1 to 1000, got 0"),
        ({"positions": "keep"}, "positions cannot be 'keep'"),
        ({"tokens": 4, "retention": 0.5}, "a budget is given in one way"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        FlashVID(**options)


def test_a_mean_over_layers_needs_a_model():
    with pytest.raises(ValueError, match=r"layer_average=0\.5 depends on the language model: call for_depth first"):
        FlashVID(layer_average=0.5).planned_count((1, 2, 2))
