"""FrameFusion's merging: golden numbers, by hand to a threshold and to a budget, and on what a pruner left."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stgridpool import FrameFusionMerge, VideoTokens, build_compressor, compress_tokens


def test_equals_the_original(golden):
    """The first merging step: to a budget where more tokens are alike than it asks for, else to the threshold."""
    cases = json.loads((golden / "sttm" / "manifest.json").read_text())["framefusion_merge"]
    tensors = load_file(golden / "sttm" / "framefusion_merge.safetensors")
    assert len(cases) == 4
    for case in cases:
        visual = slice(case["sys"], case["sys"] + case["T"] * case["P"])
        maps = tensors[f"{case['tag'].removesuffix('.s0')}.h"][0, visual].view(case["T"], 1, case["P"], -1)
        method = FrameFusionMerge() if case["sparsity_list"] else FrameFusionMerge(retention=case["cost"])
        out, plan = method(maps)
        kept = tensors[f"{case['tag']}.kept"]
        kept = kept[(kept >= visual.start) & (kept < visual.stop)]
        assert (plan.anchor + visual.start).tolist() == kept.tolist(), case
        expected = tensors[f"{case['tag']}.h"][0, visual.start : visual.start + len(kept)]
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


# Four frames of two tokens. Cosines with the frame before: 1, 0.8 / 0.8, 0.6 / 0, 1.
CLIP = torch.tensor(
    [
        [[1.0, 0], [5, 0]],
        [[2.0, 0], [4, 3]],
        [[0.8, 0.6], [0, 1]],
        [[-3.0, 4], [0, 2]],
    ]
)[:, None]


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({}, [[0, 2, 4], [1, 3, 5, 7], [6]]),  # 0.6 and above
        ({"threshold": 0.7}, [[0, 2, 4], [1, 3], [5, 7], [6]]),
        ({"threshold": 0.9}, [[0, 2], [1], [3], [4], [5, 7], [6]]),
        ({"threshold": -1}, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ({"tokens": 8}, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        ({"tokens": 7}, [[0, 2], [1], [3], [4], [5], [6], [7]]),  # 2 and 7 are equally like; the first joins
        ({"tokens": 6}, [[0, 2], [1], [3], [4], [5, 7], [6]]),
        ({"tokens_per_frame": 1}, [[0, 2, 4], [1, 3], [5, 7], [6]]),
        ({"retention": 0.25}, [[0, 2, 4, 6], [1, 3, 5, 7]]),
    ],
)
def test_chains_by_hand(options, groups):
    method = build_compressor("framefusion_merge", **options)
    out, plan = method(CLIP)
    assert plan.anchor.tolist() == [group[0] for group in groups]
    flat = CLIP.flatten(0, 2)
    torch.testing.assert_close(out, torch.stack([flat[group].mean(0) for group in groups]))
    if "threshold" not in options and options:
        assert method.planned_count((4, 1, 2)) == len(groups)
    else:
        assert method.planned_count((4, 1, 2)) is None


def test_places_that_a_pruner_emptied():
    """Places of a row of 3: tokens of frames 0, 2, 3 on the first, 1 on the second, 1 and 3 on the third."""
    cell = torch.tensor([0, 4, 5, 6, 9, 11])
    features = torch.tensor([[1.0, 0], [0, 1], [1, 1], [2, 0], [0, 3], [5, 5]])
    left, plan = compress_tokens(FrameFusionMerge(threshold=0.5), VideoTokens(features, (4, 1, 3), cell), {})
    assert plan.anchor.tolist() == [0, 1, 2, 4]
    assert plan.sizes().tolist() == [2, 1, 2, 1]
    assert left.cells().tolist() == [0, 4, 5, 9]
    assert left.features.tolist() == [[1.5, 0], [0, 1], [3, 3], [0, 3]]
    assert len(compress_tokens(FrameFusionMerge(tokens=3), VideoTokens(features, (4, 1, 3), cell), {})[0]) == 3


def test_it_equals_the_rule_written_out():
    clip = torch.randn(9, 3, 4, 3)
    flat = clip.flatten(1, 2)
    groups = {}
    for place in range(12):
        head = place
        for frame in range(9):
            token = frame * 12 + place
            if frame == 0 or F.cosine_similarity(flat[frame, place], flat[frame - 1, place], 0) < 0.2:
                head = token
            groups.setdefault(head, []).append(token)
    out, plan = FrameFusionMerge(threshold=0.2)(clip)
    assert plan.anchor.tolist() == sorted(groups)
    torch.testing.assert_close(out, torch.stack([clip.flatten(0, 2)[groups[head]].mean(0) for head in sorted(groups)]))


def test_what_it_refuses():
    with pytest.raises(ValueError, match="the first token of every place, 2 of 8, so that 1 cannot be met"):
        FrameFusionMerge(tokens=1)(CLIP)
    with pytest.raises(ValueError, match="the first token of every place, 16 of 160, so that 3 cannot be met"):
        FrameFusionMerge(retention=0.02).planned_count((10, 4, 4))
    with pytest.raises(ValueError, match=r"one way, got \{'tokens': 3, 'threshold'"):
        FrameFusionMerge(threshold=0.5, tokens=3)
    with pytest.raises(ValueError, match="threshold must be a number from -1 to 1, got 6"):
        FrameFusionMerge(threshold=6)
    assert FrameFusionMerge() == FrameFusionMerge(threshold=0.6)
    assert [step.place for step in FrameFusionMerge().steps()] == ["tokens"]
    assert not FrameFusionMerge().needs
