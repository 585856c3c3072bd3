"""DyCoke's first stage: golden numbers of STTM's baseline, by hand, the rule written out, published counts."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stgridpool import DyCokeTTM, VideoTokens, build_compressor


def test_equals_the_baseline_of_sttm(golden):
    """All 12 cases, of 5, 8 and 9 frames; the original's tokens of a frame stand in order of similarity."""
    cases = json.loads((golden / "sttm" / "manifest.json").read_text())["dycoke_stage1"]
    tensors = load_file(golden / "sttm" / "dycoke_stage1.safetensors")
    assert len(cases) == 12
    for case in cases:
        maps = tensors[case["input"]].permute(0, 2, 3, 1)
        kept = tensors[f"{case['tag']}.token_idx"].sort().values.tolist()
        method = DyCokeTTM(preset="sttm", prune=case["prune_ratio"])
        assert method(maps).plan.kept().tolist() == kept, case
        assert method.planned_count(maps.shape[:3]) == case["n_out"]
        if case["T"] % 2 == 0:  # the same as DyCoke's own code
            assert DyCokeTTM(preset="released", prune=case["prune_ratio"])(maps).plan.kept().tolist() == kept


def video(*frames):
    """Frames of tokens on one row, as angles in degrees."""
    angles = torch.tensor(frames, dtype=torch.float32).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], -1)[:, None]


# Changes: frame 1 against 0: 10, 0, 30, 20; frame 3 against 2: 0, 30, 10, 40; frame 2 against 0: 20, 40, 10, 0.
CLIP = video([0, 0, 0, 0], [10, 0, 30, 20], [20, 40, 10, 0], [20, 70, 20, 40])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"prune": 0.5}, [0, 1, 2, 3, 6, 7, 8, 9, 13, 15]),
        ({"prune": 0.75}, [0, 1, 2, 3, 6, 9, 15]),
        ({}, [0, 1, 2, 3, 6, 9, 15]),  # int(0.3 * 4)
        ({"prune": 1.0}, [0, 1, 2, 3]),
        ({"prune": 0.0}, list(range(16))),
        ({"retention": 0.5}, [0, 1, 2, 3, 6, 8, 9, 15]),  # four tokens for three frames: 1, 2, 1
        ({"tokens": 4}, [0, 1, 2, 3]),
        ({"tokens_per_frame": 4}, list(range(16))),
        ({"preset": "released", "prune": 0.75}, [0, 1, 2, 3, 6, 8, 9, 10, 11, 15]),  # the last window's third is whole
    ],
)
def test_one_window_by_hand(options, kept):
    method = build_compressor("dycoke_ttm", **options)
    out, plan = method(CLIP)
    assert plan.kept().tolist() == kept
    assert method.planned_count((4, 1, 4)) == len(kept)
    assert torch.equal(out, CLIP.flatten(0, 2)[kept])


def test_windows_that_are_not_full():
    """Seven frames: 4 is whole, 5 is compared with 4, 6 with 4; the released code drops 6 and leaves 2 to comparing."""
    clip = torch.cat([CLIP, video([0, 0, 0, 0], [0, 5, 9, 0], [3, 9, 0, 0])])
    assert DyCokeTTM(prune=0.75)(clip).plan.kept().tolist() == [0, 1, 2, 3, 6, 9, 15, 16, 17, 18, 19, 22, 25]
    released = DyCokeTTM(preset="released", prune=0.75)
    assert released(clip).plan.kept().tolist() == [0, 1, 2, 3, 6, 9, 15, 16, 17, 18, 19, 22]
    assert released.planned_count((7, 1, 4)) == 12
    assert DyCokeTTM(preset="released")(clip[:1]).plan.kept().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("prune", "percent"), [(0.3, 78.4), (0.5, 64.1), (0.7, 49.4), (1.0, 28.1)])
def test_counts_of_the_original(prune, percent):
    """Of 32 frames of 196 tokens the released code leaves these."""
    count = DyCokeTTM(preset="released", prune=prune).planned_count((32, 14, 14))
    assert 100 * count / 6272 == pytest.approx(percent, abs=0.05)


def test_it_equals_the_rule_written_out():
    clip = torch.randn(11, 3, 5, 4)
    expected, flat = [], clip.flatten(1, 2)
    for frame in range(11):
        place = frame % 4
        if place == 0:
            expected += range(frame * 15, frame * 15 + 15)
            continue
        earlier = flat[frame - 2] if place == 2 else flat[frame - 1]
        similarity = F.cosine_similarity(flat[frame], earlier, dim=1).tolist()
        expected += sorted(sorted(range(frame * 15, frame * 15 + 15), key=lambda i: similarity[i % 15])[:9])
    assert DyCokeTTM(prune=0.4)(clip).plan.kept().tolist() == expected


def test_of_equal_tokens_the_first_are_kept():
    assert DyCokeTTM(prune=0.5)(torch.ones(2, 1, 4, 3)).plan.kept().tolist() == [0, 1, 2, 3, 4, 5]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="keeps the first of every 4 frames whole, 8 of 20 tokens, so that 5 cannot"):
        DyCokeTTM(retention=0.25)(torch.randn(5, 2, 2, 3))
    with pytest.raises(ValueError, match="ask for at least 8"):
        DyCokeTTM(tokens=7).planned_count((5, 2, 2))
    with pytest.raises(ValueError, match="do not fill a lattice"):
        DyCokeTTM().plan(VideoTokens(torch.randn(2, 3), (2, 1, 2), torch.tensor([0, 2])), {})
    with pytest.raises(ValueError, match="a budget is given in one way"):
        DyCokeTTM(prune=0.5, retention=0.5)
    with pytest.raises(ValueError, match="preset='released' takes prune in place of a budget"):
        DyCokeTTM(preset="released", tokens=5)
    with pytest.raises(ValueError, match="preset='sttm' takes prune in place of a budget"):
        DyCokeTTM(preset="sttm", retention=0.5)
    with pytest.raises(ValueError, match="prune must be a number from 0 to 1, got 70"):
        DyCokeTTM(prune=70)
    with pytest.raises(ValueError, match="preset cannot be 'paper'"):
        DyCokeTTM(preset="paper")
    assert DyCokeTTM() == DyCokeTTM(prune=0.7)
    assert not DyCokeTTM().query_aware
