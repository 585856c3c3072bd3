"""ToMe: golden numbers of STTM's baseline, by hand, the rule written out, frames of different sizes."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stgridpool import ToMe, VideoTokens, build_compressor, compress_tokens
from stgridpool.algorithms import bipartite
from stgridpool.evidence import TowerKeys


def test_equals_the_baseline_of_sttm(golden):
    """All 32 cases, of which the original returns the tokens in another order.

    None has an odd number of tokens in a round before the last one, where presets differ in more than their rounding.
    """
    cases = json.loads((golden / "sttm" / "manifest.json").read_text())["tome"]
    tensors = load_file(golden / "sttm" / "tome.safetensors")
    compared = 0
    for case in cases:
        method = ToMe(retention=round(1 - case["prune_ratio"], 6), preset="released", scope="video")
        out, plan = method(tensors[case["input"]].permute(0, 2, 3, 1))
        assert len(plan) == case["n_out"]
        places, order = tensors[f"{case['tag']}.token_idx"].long().sort()
        assert plan.anchor.tolist() == places.tolist(), case
        if (expected := tensors.get(f"{case['tag']}.features")) is not None:
            torch.testing.assert_close(out, expected[order], atol=1e-5, rtol=0)
            compared += 1
    assert (len(cases), compared) == (32, 16)


# Directions in degrees: even places 0, 20, 90; odd places 10, 85, 0.
ANGLES = torch.tensor([0.0, 10, 20, 85, 90, 0]).deg2rad()
TOKENS = torch.stack([ANGLES.cos(), ANGLES.sin()], 1).view(1, 2, 3, 2)


@pytest.mark.parametrize(
    ("count", "groups"),
    [
        (6, [[0], [1], [2], [3], [4], [5]]),
        (5, [[1], [2], [3], [4], [5, 0]]),  # 0 and 5 point the same way
        (4, [[1], [2], [3, 4], [5, 0]]),  # then 5 degrees
        (3, [[1, 2], [3, 4], [5, 0]]),  # then 10
        # Second round: places 1 (15 degrees), 3 (87.5), 5 (0). 1 is nearer to 3 than 5 is, so that 1 joins it.
        (2, [[3, 4, 1, 2], [5, 0]]),
        (1, [[5, 0, 3, 4, 1, 2]]),
    ],
)
def test_rounds_by_hand(count, groups):
    out, plan = ToMe(tokens=count)(TOKENS)
    assert plan.anchor.tolist() == [group[0] for group in groups]
    rows = [sorted(plan.rows.take(torch.tensor([row])).sources.tolist()) for row in range(count)]
    assert rows == [sorted(group) for group in groups]
    flat = TOKENS.view(6, 2)
    torch.testing.assert_close(out, torch.stack([flat[group].mean(0) for group in groups]))


def _merged(vectors, count, released=False):
    """The rule, written out: (anchor, members) of each token that is left, in raster order."""
    left = [(i, [i]) for i in range(len(vectors))]
    while len(left) > count:
        means = [vectors[members].mean(0) for _, members in left]
        even, odd = range(0, len(left), 2), range(1, len(left), 2)
        proposals = []
        for i in even:
            cosine = [float(F.cosine_similarity(means[i], means[j], 0)) for j in odd]
            proposals.append((max(cosine), i, 2 * cosine.index(max(cosine)) + 1))
        proposals.sort(key=lambda one: -one[0])
        for _, i, j in proposals[: min(len(left) - count, len(left) // 2)]:
            left[j] = (left[j][0], left[j][1] + left[i][1])
            left[i] = None
        rest = [i for _, i, _ in proposals if left[i]]
        left = [left[i] for i in [*rest, *odd]] if released else [one for one in left if one]
    return sorted(left)


@pytest.mark.parametrize(
    ("options", "ranges"),
    [
        ({"tokens": 20}, [(0, 35, 7), (35, 70, 6), (70, 105, 7)]),
        ({"tokens": 20, "scope": "video"}, [(0, 105, 20)]),
        ({"tokens_per_frame": 30, "metric": "keys"}, [(0, 35, 30), (35, 70, 30), (70, 105, 30)]),
        ({"tokens": 11, "preset": "released", "scope": "video"}, [(0, 105, 11)]),  # 105, 53, 27, 14, 11
        ({"tokens": 13, "preset": "released"}, [(0, 35, 4), (35, 70, 5), (70, 105, 4)]),  # 35, 18, 9, 5, 4
    ],
)
def test_it_equals_the_rule_written_out(options, ranges, monkeypatch):
    monkeypatch.setattr(bipartite, "MOST_ENTRIES", 200)  # several blocks
    tokens, keys = torch.randn(3, 5, 7, 4), torch.randn(105, 6)
    method = build_compressor("tome", **options)
    assert method.planned_count((3, 5, 7)) == sum(count for *_, count in ranges)
    out, plan = method(tokens, {TowerKeys(): keys})
    flat = tokens.view(105, 4)
    metric = keys if "metric" in options else flat
    expected = [
        (start + anchor, [start + member for member in members])
        for start, end, count in ranges
        for anchor, members in _merged(metric[start:end], count, "preset" in options)
    ]
    assert plan.anchor.tolist() == [anchor for anchor, _ in expected]
    torch.testing.assert_close(out, torch.stack([flat[members].mean(0) for _, members in expected]))


def test_frames_of_different_sizes():
    """Frames of 6, 0, 1 and 4 tokens: a frame keeps no more than it has, and one without a share is dropped."""
    cell = torch.cat([torch.arange(6), torch.tensor([12]), torch.arange(18, 22)])
    features = torch.randn(11, 3)
    left, plan = compress_tokens(ToMe(tokens=6), VideoTokens(features, (4, 2, 3), cell), {})
    assert [int((plan.anchor < 6).sum()), int((plan.anchor == 6).sum()), int((plan.anchor > 6).sum())] == [3, 1, 2]
    assert plan.sizes().sum() == 11
    assert torch.equal(left.features[3], features[6])
    two = compress_tokens(ToMe(tokens=2), VideoTokens(features, (4, 2, 3), cell), {})[1]  # 1, 0 and 1 tokens
    assert two.sizes().tolist() == [6, 4]
    assert int(two.anchor[0]) < 6 < int(two.anchor[1])


def test_needs_and_bad_options():
    assert ToMe() == ToMe(retention=0.25, scope="frame", metric="features")
    assert ToMe().needs == frozenset()
    assert ToMe(metric="keys").needs == {TowerKeys()}
    assert not ToMe(metric="keys").query_aware
    assert [step.place for step in ToMe().steps()] == ["tokens"]
    with pytest.raises(ValueError, match="scope cannot be 'clip'"):
        ToMe(scope="clip")
    with pytest.raises(ValueError, match="metric cannot be 'values'"):
        ToMe(metric="values")
