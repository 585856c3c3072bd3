"""HoliTom: golden numbers of both halves, windows by hand, exact budgets."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from golden_methods import CASES, check_features, golden_method, runs_of_case
from stgridpool import HoliTom, Step, VideoTokens
from stgridpool.compressors.holitom.inner import HoliTomInner
from stgridpool.compressors.holitom.windows import weakest_similarity, window_lengths
from stgridpool.evidence import AttentionReceived, QueryAttention


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "holitom")


def test_every_golden_case_is_listed(original):
    assert sorted({variant["case"] for variant in original[0]}) == CASES
    assert len(original[0]) == 59


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(golden, original, case):
    for name, variant, tokens, inputs in runs_of_case(golden, original[0], case):
        method = HoliTom(variant["R"], inner_retention=1, preset="released", threshold=variant["tau"])
        out, plan = method(tokens, {AttentionReceived(): inputs["imp"].flatten()})
        anchor, order = original[1][f"{name}.anchor"].long().sort()
        assert plan.anchor.tolist() == anchor.tolist(), name
        check_features(out, original[1], name, variant["has_features"], order)


def test_inner_half_equals_the_original(golden):
    variants, tensors = golden_method(golden, "holitom_inner")
    assert len(variants) == 3
    for variant in variants:
        key, visual = variant["key"], slice(variant["sys"], variant["sys"] + variant["N"])
        tokens = VideoTokens(tensors[f"{key}.h"][visual].float(), (1, 1, variant["N"]))
        attention = {QueryAttention(17): tensors[f"{key}.attn_last_row"].mean(0)[visual]}
        plan = HoliTomInner(tokens=variant["keep"], layer=18, is_running=True).plan(tokens, attention)
        kept = [index for index in tensors[f"{key}.kept"].tolist() if visual.start <= index < visual.stop]
        assert (plan.anchor + visual.start).tolist() == kept
        dropped, goes_to = tensors[f"{key}.dropped"].long(), tensors[f"{key}.assigned_to"].long()
        group = torch.empty(variant["N"], dtype=torch.int64)
        group[plan.rows.sources] = plan.rows.row_of_entry()
        assert plan.anchor[group[dropped]].tolist() == goes_to.tolist()
        expected = tensors[f"{key}.out"][variant["sys"] : variant["sys"] + variant["keep"]]
        torch.testing.assert_close(plan.apply(tokens.features), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("stays", "lengths"),
    [
        ([[0, 0], [0, 0]], [1, 1, 1]),
        ([[1, 1], [0, 0], [1, 0]], [2, 2]),
        ([[1, 0], [1, 1]], [1, 2]),  # 2 in one window, or 2 in the last two frames: the last window is shorter
        ([[1, 0], [1, 0], [0, 1]], [3, 1]),  # 2 and then nothing, or 1 and 1: the last window is shorter
        ([[1, 1, 0], [1, 1, 1], [1, 0, 0]], [3, 1]),  # 4 against 3 in one window and 2 + 2
    ],
)
def test_windows_by_hand(stays, lengths):
    assert window_lengths(torch.tensor(stays, dtype=torch.bool)).tolist() == lengths
    assert window_lengths(torch.ones(0, 2, dtype=torch.bool)).tolist() == [1]


def saved(stays, edges):
    """Tokens that repeat the first frame of their window."""
    return sum(int(stays[first : last - 1].all(0).sum()) * (last - 1 - first) for first, last in pairwise(edges))


def test_windows_save_as_much_as_any_partition():
    """All partitions of seven frames, one after the other."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(10):
        stays = torch.rand(6, 5, generator=generator) < 0.7
        gains = []
        for cuts in range(2**6):
            edges = [0, *(i + 1 for i in range(6) if cuts >> i & 1), 7]
            gains.append(saved(stays, edges))
        assert saved(stays, [0, *window_lengths(stays).cumsum(0).tolist()]) == max(gains)


def test_similarity_is_the_weakest_of_a_window():
    similarity = torch.tensor([[0.9, 0.95, 0.5], [0.9, 0.85, 0.99], [0.1, 0.1, 0.1]])
    weakest = weakest_similarity(similarity, torch.tensor([3, 1]))
    torch.testing.assert_close(weakest, torch.tensor([[0.9, 0.85, 0.5], [-torch.inf] * 3]))


# Two frames of four places. Places 0, 1 and 2 stay the same; the last one turns.
CLIP = torch.tensor(
    [[[1.0, 0, 0], [1, 0.2, 0], [0, 4, 0], [0, 0, 1]], [[3, 0, 0], [3, 0.6, 0], [0, 8, 0], [1, 0, 0]]]
).view(2, 2, 2, 3)
ATTENTION = {AttentionReceived(): torch.tensor([0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.7])}


def test_both_kinds_by_hand():
    """Three tokens for three static places and one dynamic token in each frame: 1.8, 0.6 and 0.6, so 2, 1, 0.

    The static means are (2, 0, 0), (2, 0.4, 0) and (0, 6, 0), of scores 0.003, 0.07 and 0.001; the last is nearer to
    the second.
    """
    out, plan = HoliTom(tokens=3, inner_retention=1)(CLIP, ATTENTION)
    assert plan.anchor.tolist() == [0, 1, 3]
    merged = 0.6 * torch.tensor([2, 0.4, 0]) + 0.4 * torch.tensor([0.0, 6, 0])
    torch.testing.assert_close(out, torch.stack([torch.tensor([2.0, 0, 0]), merged, torch.tensor([0.0, 0, 1])]))


def test_the_inner_half_by_hand():
    """Tokens 1 and 4 are kept; 0, 2 and 3 are most like the first of them."""
    tokens = VideoTokens(torch.tensor([[2.0, 0], [1, 0], [4, 1], [8, 0], [0, 1]]), (1, 1, 5))
    attention = {QueryAttention(0): torch.tensor([0.0, 0.5, 0.1, 0.1, 0.3])}
    mean = HoliTomInner(tokens=2).plan(tokens, attention).apply(tokens.features)
    torch.testing.assert_close(mean, torch.tensor([[15 / 4, 1 / 4], [0, 1]]))
    running = HoliTomInner(tokens=2, is_running=True).plan(tokens, attention).apply(tokens.features)
    torch.testing.assert_close(running, torch.tensor([[((1 + 2) / 2 + 4) / 4 + 4, 1 / 4], [0, 1]]))


@pytest.mark.parametrize("retention", [0.05, 0.25, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("case", ["s00_blocky", "s03_scenes", "s07_smooth_T1"])
def test_budgets_are_met(golden, case, retention):
    """The released code leaves at most 588 of 1568 tokens of the first clip, however many are asked for."""
    inputs = load_file(golden / "methods" / "inputs" / f"{case}.safetensors")
    tokens = inputs["x"].float().view(len(inputs["x"]), 7, -1, 32)
    method = HoliTom(retention, inner_retention=1)
    plan = method(tokens, {AttentionReceived(): inputs["imp"].flatten()}).plan
    assert len(plan) == method.planned_count(tokens.shape[:3]) == int(retention * tokens[..., 0].numel() + 1e-9)
    assert plan.anchor.tolist() == sorted(set(plan.anchor.tolist()))


def test_where_it_acts_and_bad_options():
    front, inside = HoliTom().steps()
    assert front == Step(HoliTom(inner_retention=1.0), "tokens")
    assert inside == Step(HoliTomInner(0.5, layer=18), 18, "survive")
    assert HoliTom(preset="released").steps()[1].compressor.is_running
    assert HoliTom().needs == {AttentionReceived(), QueryAttention(17)}
    for options, message in (
        ({"preset": "paper"}, "preset cannot be 'paper'"),
        ({"importance": "cls"}, "importance cannot be 'cls'"),
        ({"threshold": 80}, "threshold must be a number from -1 to 1"),
        ({"self_weight": 2}, "self_weight must be a number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            HoliTom(**options)
