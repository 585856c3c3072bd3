"""DivPrune: golden numbers of the original, budgets and scopes by hand, copies."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import DivPrune, VideoTokens, build_compressor


def test_equals_the_original(golden):
    """All 51 cases; the original has no frames, so that the count is given where it chose in each of them."""
    folder = golden / "methods"
    variants = json.loads((folder / "divprune" / "manifest.json").read_text())["variants"]
    expected = load_file(folder / "divprune" / "divprune.safetensors")
    assert len(variants) == len(expected) == 51
    for variant in variants:
        frames, height, width = variant["T"], variant["H"], variant["W"]
        tokens = load_file(folder / "inputs" / f"{variant['case']}.safetensors")["x"].view(frames, height, width, -1)
        selected = expected[f"{variant['case']}.{variant['tag']}.selected"].long()
        starts = torch.arange(len(selected))[:, None] * height * width
        if variant["scope"] == "frame":
            method = DivPrune(tokens=selected.numel(), scope="frame")
        else:
            method = DivPrune(retention=variant["R"], preset="released")
            assert method.planned_count((frames, height, width)) == selected.numel(), variant
        plan = method(tokens.float()).plan
        assert plan.kept().tolist() == (selected + starts).flatten().sort().values.tolist(), variant


# Directions in degrees; frame 0 is the first four.
DEGREES = torch.tensor([0.0, 8.0, 90.0, 101.0, 180.0, 200.0, 30.0, 30.0])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        # Frame 0: 90 and 101 are 11 from their nearest, so the first of them; then 0, which is 90 away. Frame 1: 180
        # and 200 are 20 from theirs, so 180; then 30, 150 away, of two copies the first.
        ({"scope": "frame", "tokens_per_frame": 2}, [0, 2, 4, 6]),
        ({"scope": "frame", "tokens": 5}, [0, 2, 3, 4, 6]),  # of frame 0 one more: 101, 11 from 90; 8 is 8 from 0
        ({"tokens": 3}, [0, 2, 4]),  # of all: 180; 0, which is 180 away; 90
        ({"retention": 0.5}, [0, 2, 4, 6]),  # 30 is 30 from 0, while 200 is 20 from 180
        ({"retention": 1.0}, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_budgets_and_scopes_by_hand(options, kept):
    radians = DEGREES.deg2rad()
    tokens = torch.stack([radians.cos(), radians.sin()], dim=1).view(2, 2, 2, 2)
    assert DivPrune(**options)(tokens).plan.kept().tolist() == kept


def test_presets_round_differently():
    """0.35 of 10 tokens are 3.5, 0.45 of 10 are 4.5: to the even number; 0.01 of them are none, but one stays."""
    for retention, down, nearest in ((0.35, 3, 4), (0.45, 4, 4), (0.26, 2, 3), (0.01, 1, 1)):
        for preset, count in (("corrected", down), ("released", nearest)):
            method = build_compressor("divprune", retention=retention, preset=preset)
            assert method.planned_count((1, 2, 5)) == len(method(torch.randn(1, 2, 5, 4)).plan) == count
    assert DivPrune(tokens=3, preset="released").planned_count((1, 2, 5)) == 3
    with pytest.raises(ValueError, match="preset cannot be 'paper'"):
        DivPrune(preset="paper")


def test_equal_tokens_are_kept_from_the_first_on():
    assert DivPrune(tokens=3)(torch.ones(2, 2, 2, 4)).plan.kept().tolist() == [0, 1, 2]


def test_frames_of_different_sizes():
    tokens = VideoTokens(torch.eye(5), (2, 2, 2), torch.tensor([3, 4, 5, 6, 7]))
    assert DivPrune(tokens=4, scope="frame").plan(tokens, {}).kept().tolist() == [0, 1, 2, 3]


def test_defaults_and_bad_options():
    assert DivPrune() == DivPrune(retention=0.25, scope="video")
    assert not DivPrune().needs
    assert [step.place for step in DivPrune().steps()] == ["tokens"]
    with pytest.raises(ValueError, match="scope cannot be 'clip'"):
        DivPrune(scope="clip")
