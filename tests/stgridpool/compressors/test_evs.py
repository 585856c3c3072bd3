"""EVS: golden numbers of vLLM, its counts, and changes by hand."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import EVS, VideoTokens


def test_equals_vllm(golden):
    folder = golden / "methods"
    variants = json.loads((folder / "evs" / "manifest.json").read_text())["variants"]
    expected = load_file(folder / "evs" / "evs.safetensors")
    assert len(variants) == 48
    for variant in variants:
        name = f"{variant['case']}.{variant['tag']}"
        inputs = load_file(folder / "inputs" / f"{variant['case']}.safetensors")
        tokens = inputs["x"].float().view(variant["T"], variant["H"], variant["W"], -1)
        method = EVS(pruning_rate=variant["q"])
        out, plan = method(tokens)
        kept = expected[f"{name}.kept"].long()
        assert torch.equal(plan.kept(), kept), name
        assert torch.equal(out, tokens.flatten(0, 2)[kept])
        assert method.planned_count(tokens.shape[:3]) == variant["total"]
        counts = torch.bincount(kept // (variant["H"] * variant["W"]), minlength=variant["T"])
        assert torch.equal(counts, expected[f"{name}.counts"].long())


def test_counts_equal_vllm(golden):
    rows = json.loads((golden / "methods" / "evs" / "counts.json").read_text())
    assert len(rows) > 10
    for row in rows:
        assert EVS(pruning_rate=row["q"]).planned_count((row["T"], 1, row["tokens_per_frame"])) == row["retained"], row


# Directions in degrees: changes are 1 - cos of 0, 10, 90, 0 and of 60, 0, 0, 180.
DEGREES = torch.tensor([[0.0, 0, 0, 0], [0, 10, 90, 0], [60, 10, 90, 180]])
MAPS = torch.stack([DEGREES.deg2rad().cos(), DEGREES.deg2rad().sin()], -1).view(3, 2, 2, 2)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"tokens": 4}, [0, 1, 2, 3]),
        ({"tokens": 7}, [0, 1, 2, 3, 6, 8, 11]),
        ({"retention": 0.5}, [0, 1, 2, 3, 6, 11]),
        ({"tokens_per_frame": 1}, [0, 1, 2]),  # less than a frame: the first places
        ({"pruning_rate": 0.9}, [0, 1, 2, 3]),  # int(1.2) tokens, but at least a frame
        ({"pruning_rate": 0.5}, [0, 1, 2, 3, 6, 11]),
        ({"pruning_rate": 0}, list(range(12))),
    ],
)
def test_by_hand(options, kept):
    assert EVS(**options)(MAPS).plan.kept().tolist() == kept
    assert EVS(**options).planned_count((3, 2, 2)) == len(kept)


def test_length_does_not_matter_but_zeros_do():
    """A token twice as long has not changed; one that vanishes has, by 1, and as much when it comes back."""
    rows = torch.tensor([[1.0, 1], [0, 1], [2, 2], [0, 0], [4, 4], [0, 3]]).view(3, 1, 2, 2)
    assert EVS(tokens=3)(rows).plan.kept().tolist() == [0, 1, 3]
    assert EVS(tokens=4)(rows).plan.kept().tolist() == [0, 1, 3, 5]


def test_tokens_of_a_pruned_video():
    """Tokens at places 0 and 1 of four frames; what comes first at its place is new, whatever its frame."""
    cell = torch.tensor([0, 3, 4, 5, 6])  # (frame, place): (0, 0), (1, 1), (2, 0), (2, 1), (3, 0)
    angles = torch.tensor([0.0, 50, 80, 50, 90]).deg2rad()
    tokens = VideoTokens(torch.stack([angles.cos(), angles.sin()], 1), (4, 1, 2), cell)
    assert EVS(tokens=2).plan(tokens, {}).kept().tolist() == [0, 1]
    assert EVS(tokens=4).plan(tokens, {}).kept().tolist() == [0, 1, 2, 4]
    assert EVS(pruning_rate=0.2).planned_count((4, 1, 2), 5) == 4


def test_bad_options():
    assert EVS() == EVS(retention=0.25)
    with pytest.raises(ValueError, match="pruning_rate must be a number from 0 to 1, got 30"):
        EVS(pruning_rate=30)
