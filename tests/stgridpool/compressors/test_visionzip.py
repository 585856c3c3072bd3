"""VisionZip: golden numbers of the original, both presets by hand, edges, frames of different sizes."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from golden_methods import CASES, golden_method
from stgridpool import VideoTokens, VisionZip, build_compressor, compress_tokens
from stgridpool.evidence import AttentionReceived, ClassAttention, PoolHeadAttention, TowerKeys

NEEDS = (AttentionReceived(), TowerKeys())


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "visionzip")


def test_every_golden_case_is_listed(original):
    assert sorted({variant["case"] for variant in original[0]}) == CASES
    assert len(original[0]) == 48


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(golden, original, case):
    inputs = load_file(golden / "methods" / "inputs" / f"{case}.safetensors")
    evidence = {ClassAttention(): inputs["imp"].flatten(), TowerKeys(): inputs["keys"].float().flatten(0, 1)}
    for variant in (variant for variant in original[0] if variant["case"] == case):
        name = f"{case}.{variant['tag']}"
        expected = {key[len(name) + 1 :]: value for key, value in original[1].items() if key.startswith(f"{name}.")}
        share = 0.5 if variant["dominant"] == variant["S"] // 2 else 54 / 64
        method = VisionZip(tokens_per_frame=variant["S"], importance="class", dominant=share)
        tokens = inputs["x"].float().view(variant["T"], variant["H"], variant["W"], -1)
        out, plan = method(tokens, evidence)
        assert method.planned_count(tokens.shape[:3]) == len(plan) == variant["T"] * variant["S"]
        _compare(tokens, out, plan, expected)


def _compare(tokens, out, plan, expected):
    area = tokens.shape[1] * tokens.shape[2]
    starts = torch.arange(len(tokens))[:, None] * area
    dominant, targets = ((expected[name].long() + starts).flatten() for name in ("dominant", "contextual"))
    assert torch.equal(plan.anchor, torch.cat([dominant, targets]).sort().values)
    group = torch.full((plan.num_sources,), -1)
    group[plan.rows.sources] = plan.rows.row_of_entry()
    assigned = expected["assign"].long().flatten()
    joined = assigned >= 0
    wanted = torch.where(
        joined, targets.view(len(tokens), -1).gather(1, expected["assign"].long().clamp_min(0)).flatten(), -1
    )
    wanted[dominant] = dominant
    assert torch.equal(plan.anchor[group], wanted)
    assert torch.equal(out[torch.searchsorted(plan.anchor, dominant)], tokens.flatten(0, 2)[dominant])
    contextual = out[torch.searchsorted(plan.anchor, targets)]
    width = tokens.shape[3]
    prints = torch.stack([contextual.sum(1), contextual @ (torch.arange(width) / width)], dim=1)
    torch.testing.assert_close(prints, expected["feat_fp"].flatten(0, 1), atol=2e-3, rtol=0)
    if "features" in expected:
        torch.testing.assert_close(contextual, expected["features"].flatten(0, 1), atol=2e-4, rtol=0)


# One frame of 2x4: tokens 1 and 6 get most attention; the others are 0, 2, 3, 4, 5, 7, of which every third, 0 and 4,
# stands for those whose keys point its way. 5 points between both, so that the first of them takes it.
ATTENTION = torch.tensor([0.05, 0.3, 0.05, 0.1, 0.0, 0.1, 0.35, 0.05])
KEYS = torch.tensor([[1, 0], [9, 9], [3, 1], [0, 2], [0, 1], [1, 1], [9, 9], [1, 5]], dtype=torch.float32)
BY_HAND = {NEEDS[0]: ATTENTION, NEEDS[1]: KEYS}
TOKENS = 2.0 ** torch.arange(8).view(1, 2, 4, 1)


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("released", [1 + (4 + 32) / 2, 2, 16 + (8 + 128) / 2, 64]),
        ("corrected", [(1 + 4 + 32) / 3, 2, (16 + 8 + 128) / 3, 64]),
    ],
)
def test_both_presets_by_hand(preset, values):
    out, plan = VisionZip(preset=preset, tokens=4, dominant=0.5)(TOKENS, BY_HAND)
    assert plan.anchor.tolist() == [0, 1, 4, 6]
    assert plan.sizes().tolist() == [3, 1, 3, 1]
    torch.testing.assert_close(out.flatten(), torch.tensor(values))


@pytest.mark.parametrize(
    ("options", "anchor", "values"),
    [
        # S = 1: int(54 / 64) = 0 dominant tokens, and the only contextual one is the first; all others go to it.
        ({"tokens": 1}, [0], [1 + 254 / 7]),
        ({"tokens": 3, "dominant": 1.0}, [1, 3, 6], [2, 8, 64]),  # no contextual token: the rest is dropped
        ({"tokens": 8}, list(range(8)), [2.0**i for i in range(8)]),  # nothing to merge: 6 dominant, 2 themselves
        ({"retention": 1.0, "dominant": 1.0}, list(range(8)), [2.0**i for i in range(8)]),
        # More contextual tokens than half the rest: every one of the first 5 of 6; only 7 is left to go to one, to 3.
        ({"tokens": 7, "dominant": 0.3}, [0, 1, 2, 3, 4, 5, 6], [1, 2, 4, 8 + 128, 16, 32, 64]),
    ],
)
def test_edges_by_hand(options, anchor, values):
    out, plan = VisionZip(**options)(TOKENS, BY_HAND)
    assert plan.anchor.tolist() == anchor
    torch.testing.assert_close(out.flatten(), torch.tensor(values, dtype=torch.float32))


def test_a_frame_without_a_share_is_dropped():
    evidence = {need: torch.cat([value, value]) for need, value in BY_HAND.items()}
    out, plan = VisionZip(tokens=1)(torch.cat([TOKENS, TOKENS]), evidence)
    assert plan.anchor.tolist() == [0]
    torch.testing.assert_close(out.flatten(), torch.tensor([1 + 254 / 7]))
    assert plan.sizes().tolist() == [8]


def test_a_token_unlike_all_targets_goes_to_the_least_unlike():
    """Frames of 3 and 2 targets; in the second, tokens 1 and 3 point away from both, 1 less from the first."""
    keys = torch.tensor([[1.0, 0]] * 4 + [[1.0, 1], [1, -2], [0, 1], [-2, -1]])
    method = VisionZip(tokens=5, dominant=0)
    plan = method(TOKENS.view(2, 2, 2, 1), {NEEDS[0]: ATTENTION, NEEDS[1]: keys}).plan
    assert plan.anchor.tolist() == [0, 1, 2, 4, 6]
    assert plan.rows.take(torch.tensor([3])).sources.tolist() == [4, 5]
    assert plan.rows.take(torch.tensor([4])).sources.tolist() == [6, 7]


def test_frames_are_treated_alone():
    """Frames of 40, 0, 1, 7 and 25 tokens, as a pruner may leave them, against each one as a video of its own."""
    sizes, width = [40, 0, 1, 7, 25], 40
    cell = torch.cat([torch.arange(size) + frame * width for frame, size in enumerate(sizes)])
    features, keys, attention = torch.randn(len(cell), 6), torch.randn(len(cell), 5), torch.rand(len(cell))
    tokens = VideoTokens(features, (5, 5, 8), cell)
    method = VisionZip(tokens=37)
    left, plan = compress_tokens(method, tokens, dict(zip(NEEDS, (attention, keys), strict=True)))
    assert len(left) == method.planned_count((5, 5, 8), len(cell)) == 37
    # 37 over frames of at most 40, 0, 1, 7, 25: 1, 7, and 29 for two, of which the first takes one more.
    start = 0
    for size, share in zip(sizes, [15, 0, 1, 7, 14], strict=True):
        if size:
            part = slice(start, start + size)
            alone = VideoTokens(features[part], (1, 5, 8), cell[part] % width)
            evidence = dict(zip(NEEDS, (attention[part], keys[part]), strict=True))
            expected, its_plan = compress_tokens(VisionZip(tokens=share), alone, evidence)
            mine = (plan.anchor >= start) & (plan.anchor < start + size)
            assert torch.equal(plan.anchor[mine], its_plan.anchor + start)
            torch.testing.assert_close(left.features[mine], expected.features)
        start += size


def test_it_equals_a_loop_over_tokens():
    """The rule written out token by token, with a share of the dominant that leaves many contextual ones."""
    tokens, keys, attention = torch.randn(3, 5, 7, 4), torch.randn(105, 6), torch.rand(105)
    out, plan = VisionZip(tokens_per_frame=11, dominant=0.4)(tokens, {NEEDS[0]: attention, NEEDS[1]: keys})
    anchors, rows = [], {}
    for start in (0, 35, 70):
        ranked = sorted(range(start, start + 35), key=lambda i: (-attention[i], i))
        dominant, rest = ranked[:4], sorted(ranked[4:])
        targets = rest[:: 31 // 7][:7]
        members = {target: [] for target in targets}
        for i in rest:
            if i not in members:
                members[max(targets, key=lambda t: float(F.cosine_similarity(keys[i], keys[t], 0)))].append(i)
        flat = tokens.view(105, 4)
        rows |= {i: flat[i] for i in dominant}
        rows |= {t: flat[t] + (flat[group].mean(0) if group else 0) for t, group in members.items()}
        anchors += sorted([*dominant, *targets])
    assert plan.anchor.tolist() == anchors
    torch.testing.assert_close(out, torch.stack([rows[i] for i in anchors]))


def test_behind_pooling_evidence_is_that_of_the_windows():
    """Bilinear with stride 2 takes the mean of 2x2 patches, of features, attention and keys alike."""
    patches = torch.arange(64.0).view(2, 4, 8, 1)
    # The means of attention are 1, 3, 2, 8 / 0, 5, 7, 4 in the first frame and the reverse of that in the second.
    pooled = torch.tensor([[1.0, 3, 2, 8, 0, 5, 7, 4], [4, 7, 5, 0, 8, 2, 3, 1]])
    spread = torch.tensor([[2.0, 0.0], [1.0, 1.0]])  # mean 1: how attention lies within a window does not matter
    attention = (pooled.view(2, 2, 1, 4, 1) * spread[:, None]).reshape(2, 4, 8)
    # Keys: windows of the rest point along x or y on average only; each patch alone points elsewhere.
    angle = torch.tensor([[0.0, 9, 1, 9, 1, 0, 9, 1], [0.0, 9, 0, 1, 9, 1, 0, 0]])
    means = torch.stack([(angle == 0).float(), (angle == 1).float()], -1)
    swing = torch.tensor([[5.0, -5.0], [3.0, -3.0]])
    keys = (means.view(2, 2, 1, 4, 1, 2) + swing[:, None, :, None]).reshape(2, 4, 8, 2)
    evidence = {NEEDS[0]: attention.flatten(), NEEDS[1]: keys.flatten(0, 2)}
    both = build_compressor("bilinear+visionzip", visionzip={"tokens_per_frame": 4, "dominant": 0.5})
    assert both.planned_count((2, 4, 8)) == 8
    assert [step.place for step in both.steps()] == ["patches", "tokens"]
    out, plan = both(patches, evidence)
    # Windows of frame 0 have the means m_w below; 3 and 6 are dominant, the others are 0, 1, 2, 4, 5, 7: targets 0, 4.
    means = patches.view(2, 2, 2, 4, 2).mean((2, 4)).view(2, 8)
    first, second = means
    # Frame 0: 0 points along x, 4 along y. 5 goes to 0; 2 and 7 go to 4; 1 points nowhere, so the first takes it.
    # Frame 1: 1 and 4 are dominant; the others are 0, 2, 3, 5, 6, 7: targets 0 (x) and 5 (y). 2, 6, 7 go to 0, 3 to 5.
    expected = torch.tensor(
        [
            first[0] + (first[1] + first[5]) / 2,
            first[3],
            first[4] + (first[2] + first[7]) / 2,
            first[6],
            second[0] + (second[2] + second[6] + second[7]) / 3,
            second[1],
            second[4],
            second[5] + second[3],
        ]
    )
    torch.testing.assert_close(out.flatten(), expected)
    corners = [0, 6, 16, 20, 32, 34, 48, 50]  # the first patch of each window: 8 tokens a row, 32 a frame
    assert plan.anchor.tolist() == corners
    assert plan.sizes().tolist() == [12, 4, 12, 4, 16, 4, 4, 8]
    torch.testing.assert_close(plan.apply(patches), out)


def test_needs_and_bad_options():
    for name, need in {"received": AttentionReceived, "class": ClassAttention, "pool_head": PoolHeadAttention}.items():
        assert VisionZip(importance=name).needs == {need(), TowerKeys()}
    assert VisionZip() == VisionZip(retention=0.25, preset="released", importance="received", dominant=0.84375)
    assert not VisionZip().query_aware
    with pytest.raises(ValueError, match=r"preset cannot be 'paper'.*released"):
        VisionZip(preset="paper")
    with pytest.raises(ValueError, match="importance cannot be 'cls'"):
        VisionZip(importance="cls")
    with pytest.raises(ValueError, match="dominant must be a number from 0 to 1, got 54"):
        VisionZip(dominant=54)
