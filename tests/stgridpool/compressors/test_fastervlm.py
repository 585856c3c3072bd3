"""FasterVLM: golden numbers of the original, budgets, and where importance comes from."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import FasterVLM, VideoTokens
from stgridpool.evidence import AttentionReceived, ClassAttention, PoolHeadAttention


def test_equals_the_original(golden):
    """All 36 cases; the original rounds a ratio down in each frame, so the count is given per frame."""
    folder = golden / "methods"
    variants = json.loads((folder / "fastervlm" / "manifest.json").read_text())["variants"]
    expected = load_file(folder / "fastervlm" / "fastervlm.safetensors")
    assert len(variants) == len(expected) == 36
    for variant in variants:
        inputs = load_file(folder / "inputs" / f"{variant['case']}.safetensors")
        frames, area = variant["T"], variant["H"] * variant["W"]
        assert variant["k"] == int(area * variant["R"])
        tokens = inputs["x"].float().view(frames, variant["H"], variant["W"], -1)
        method = FasterVLM(tokens_per_frame=variant["k"], importance="class")
        out, plan = method(tokens, {ClassAttention(): inputs["imp"].flatten()})
        kept = expected[f"{variant['case']}.{variant['tag']}.kept"].long() + torch.arange(frames)[:, None] * area
        assert torch.equal(plan.kept(), kept.flatten()), variant
        assert torch.equal(out, tokens.flatten(0, 2)[kept.flatten()])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"tokens_per_frame": 2}, [0, 2, 4, 5]),  # of equal scores the first
        ({"tokens": 3}, [0, 2, 5]),  # shared equally: two and one
        ({"tokens": 2, "scope": "video"}, [2, 5]),
        ({"retention": 0.7}, [0, 1, 2, 4, 5]),  # 5 of 8: three and two
    ],
)
def test_budgets_by_hand(options, kept):
    tokens = torch.arange(8.0).view(2, 2, 2, 1)
    attention = torch.tensor([0.2, 0.2, 0.4, 0.2, 0.1, 0.7, 0.1, 0.1])
    out, plan = FasterVLM(**options)(tokens, {AttentionReceived(): attention})
    assert plan.kept().tolist() == kept == out.flatten().tolist()


def test_frames_of_different_sizes():
    """Of a pruned video's frames of 1 and 4 tokens the small one keeps what it has, and the other takes the rest."""
    cell = torch.tensor([3, 4, 5, 6, 7])
    tokens = VideoTokens(torch.randn(5, 3), (2, 2, 2), cell)
    attention = torch.tensor([0.0, 0.3, 0.1, 0.5, 0.2])
    assert FasterVLM(tokens=4).plan(tokens, {AttentionReceived(): attention}).kept().tolist() == [0, 1, 3, 4]


def test_importance_names_what_it_needs():
    needs = {"received": AttentionReceived(), "class": ClassAttention(), "pool_head": PoolHeadAttention()}
    assert {name: FasterVLM(importance=name).needs for name in needs} == {
        name: frozenset({need}) for name, need in needs.items()
    }
    assert FasterVLM() == FasterVLM(retention=0.25, importance="received", scope="frame")
    assert not FasterVLM().query_aware
    assert [step.place for step in FasterVLM().steps()] == ["tokens"]
    with pytest.raises(ValueError, match=r"importance cannot be 'cls'.*class"):
        FasterVLM(importance="cls")
