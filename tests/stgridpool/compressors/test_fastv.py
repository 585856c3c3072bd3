"""FastV against the original's scores and choices; how it acts in a decoder is tested in tests/stgridpool/decoder."""

import pytest
import torch

from golden_methods import golden_method
from stgridpool import FastV, Step, VideoTokens, build_compressor
from stgridpool.decoder.attention_rows import attention_received
from stgridpool.evidence import QueryAttention


@pytest.fixture(scope="module")
def cases(golden):
    """Manifest entries with their tensors."""
    variants, tensors = golden_method(golden, "fastv_pyramiddrop")
    return [(variant, tensors) for variant in variants if variant["kind"] == "fastv"]


def test_scores_and_choices_of_the_original(cases):
    for variant, tensors in cases:
        key, count = variant["key"], variant["attention_rank"]
        keys = tensors[f"{key}.k"]
        rows, visual = torch.tensor([keys.shape[1] - 1]), variant["sys"] + torch.arange(variant["N"])
        queries = tensors[f"{key}.q_last"][:, None]
        scores = attention_received(queries, keys, rows, visual, variant["head_dim"] ** -0.5)
        torch.testing.assert_close(scores, tensors[f"{key}.scores"], atol=1e-6, rtol=1e-5)
        tokens = VideoTokens(torch.zeros(variant["N"], 1), (1, 1, variant["N"]))
        plan = FastV(tokens=count, preset="released").plan(tokens, {QueryAttention(1): scores})
        assert plan.kept().tolist() == tensors[f"{key}.R{variant['R'] * 100:.0f}.kept_visual"].tolist()
    assert len(cases) == 12


def test_where_it_acts_and_what_it_asks_for():
    method = FastV()
    assert (method.retention, method.scope) == (0.5, "video")
    assert method.steps() == (Step(method, 2, "survive"),)
    assert method.needs == {QueryAttention(1, "last", "mean")}
    assert method.query_aware
    other = build_compressor("fastv", layer=5, tokens_per_frame=3, scope="frame", positions="reassign")
    assert other.steps() == (Step(other, 5, "reassign"),)
    assert other.needs == {QueryAttention(4)}
    assert other.planned_count((4, 3, 3)) == 12


def test_a_mean_over_layers_becomes_a_retention():
    """2 of 28 layers keep all: 0.3 * 28 = 2 + 26 * r."""
    settled = FastV(layer_average=0.3).for_depth(28)
    assert settled.layer_average is None
    assert settled.retention == pytest.approx((0.3 * 28 - 2) / 26)
    assert FastV().for_depth(28) == FastV()
    chain = build_compressor("st_gridpool+fastv", fastv={"layer_average": 0.5}).for_depth(10)
    assert chain.methods[1].retention == pytest.approx((0.5 * 10 - 2) / 8)
    with pytest.raises(ValueError, match=r"layer_average=0\.3 depends on the language model: call for_depth first"):
        FastV(layer_average=0.3).planned_count((1, 2, 2))
    with pytest.raises(ValueError, match="2 of 28 layers keep all tokens"):
        FastV(layer_average=0.07).for_depth(28)
    with pytest.raises(ValueError, match="layer must be below the model's 4 layers, got 4"):
        FastV(layer=4, layer_average=0.5).for_depth(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 0}, "layer must be a whole number from 1 to 1000, got 0"),
        ({"preset": "paper"}, "preset cannot be 'paper'"),
        ({"positions": "keep"}, "positions cannot be 'keep'"),
        ({"layer_average": 0.5, "tokens": 4}, r"got \{'tokens': 4, 'layer_average'"),
        ({"layer_average": 1.5}, "layer_average must be a number above 0 and at most 1"),
        ({"layer_average": 0.5, "scope": "clip"}, "scope cannot be 'clip'"),
        ({"retention": 0.5, "tokens": 4}, "a budget is given in one way"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        FastV(**options)
