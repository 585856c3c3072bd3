"""AOT: golden numbers of the original, each stage by hand, edges."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stgridpool import AOT
from stgridpool.algorithms.transport import gather_over_time
from stgridpool.evidence import AttentionReceived
from stgridpool.plan import Plan

NEEDS = (AttentionReceived(-21), AttentionReceived(-2))


@pytest.fixture(scope="module")
def original(golden):
    folder = golden / "methods" / "aot"
    variants = json.loads((folder / "manifest.json").read_text())["variants"]
    return variants, load_file(folder / "inputs.safetensors"), load_file(folder / "aot.safetensors")


def test_equals_the_original(original):
    """All cases without newline tokens, which are none of ours; the original's tokens stand in another order."""
    variants = [variant for variant in original[0] if not variant["newline_grid"]]
    for variant in variants:
        case, frames = variant["case"], variant["T"]
        tokens = original[1][f"{case}.x"].float().view(frames, 27, 27, -1)
        attention = (original[1][f"{case}.attn_{name}"].flatten() for name in ("shallow", "deep"))
        method = AOT(
            anchors=variant["visual_token_num"],
            global_share=variant["global_ratio"],
            pooling=variant["pool"],
            keep=variant["keep_ratio"],
            segment=variant["segments"] or 4,
        )
        out, plan = method(tokens, dict(zip(NEEDS, attention, strict=True)))
        name = f"{case}.{variant['tag']}"
        assert len(out) == variant["tokens_out"], name
        width = out.shape[1]
        prints = torch.stack([out.sum(1), out @ (torch.arange(width) / width)], 1)
        order = (original[2][f"{name}.out_fp"][:, None] - prints).abs().amax(2).argmin(1)
        torch.testing.assert_close(prints[order], original[2][f"{name}.out_fp"], atol=2e-3, rtol=0)
        assert order.unique().numel() == len(out)
        if f"{name}.features" in original[2]:
            torch.testing.assert_close(out[order], original[2][f"{name}.features"], atol=2e-4, rtol=0)
        torch.testing.assert_close(plan.apply(torch.ones(plan.num_sources, 1)), torch.ones(len(plan), 1))
    assert len(variants) == 21


def test_newline_tokens_change_nothing_in_the_frames(original):
    """Where nothing is gathered over time, the original's tokens are ours and 13 newline tokens of each frame."""
    variants = [one for one in original[0] if one["newline_grid"] and one["keep_ratio"] is None]
    for variant in variants:
        case = variant["case"]
        tokens = original[1][f"{case}.x"].float().unflatten(1, (27, 27))
        attention = (original[1][f"{case}.attn_{name}"].flatten() for name in ("shallow", "deep"))
        method = AOT(variant["visual_token_num"], variant["global_ratio"], variant["pool"], keep=None)
        out = method(tokens, dict(zip(NEEDS, attention, strict=True))).tokens
        assert len(out) == variant["tokens_out"] - 13 * variant["T"]
        width = out.shape[1]
        prints = torch.stack([out.sum(1), out @ (torch.arange(width) / width)], 1)
        expected = original[2][f"{case}.{variant['tag']}.out_fp"]
        assert float((prints[:, None] - expected).abs().amax(2).amin(1).max()) < 2e-3
    assert variants


def test_newline_tokens_are_gathered_over_time_like_others(original):
    """The original appends a newline token to each row of 13; they are kept, and gathered with the frames' tokens."""
    variants = [one for one in original[0] if one["newline_grid"] and one["keep_ratio"] is not None]
    for variant in variants:
        case, name = variant["case"], f"{variant['case']}.{variant['tag']}"
        tokens = original[1][f"{case}.x"].float().unflatten(1, (27, 27))
        attention = (original[1][f"{case}.attn_{layer}"].flatten() for layer in ("shallow", "deep"))
        method = AOT(variant["visual_token_num"], variant["global_ratio"], variant["pool"], keep=None)
        values, plan = method(tokens, dict(zip(NEEDS, attention, strict=True)))
        frame, place = plan.anchor // 27**2, plan.anchor % 27**2  # the first of the 2x2 patches of a pooled token
        cell = frame * 13 * 14 + place // 27 // 2 * 14 + place % 27 // 2
        ends = torch.arange(variant["T"] * 13) * 14 + 13
        values = torch.cat([values, original[1][f"{case}.newline"].float().expand(len(ends), -1)])
        order = torch.cat([cell, ends]).argsort()
        sizes = (torch.cat([cell, ends]) // (13 * 14)).bincount().tolist()
        assert sizes == variant["anchors_per_frame"], name
        rows, _ = gather_over_time(values[order], sizes, variant["segments"], variant["keep_ratio"])
        out = Plan(rows, len(values), torch.zeros(len(rows), dtype=torch.int64)).apply(values[order])
        torch.testing.assert_close(out, original[2][f"{name}.features"].float(), atol=2e-4, rtol=0)
    assert len(variants) == 2


def test_anchors_by_hand():
    """Of 9 tokens in 9 windows, 4 anchors: half of them would be local, 2 for 9 windows, so none is; 2 are global."""
    deep = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.0, 0.0, 0.0])
    method = AOT(anchors=4)
    assert method._anchors((1, 3, 3), torch.rand(9), deep).tolist() == [[1, 3]]
    more = AOT(anchors=18, global_share=0.5)._anchors((1, 6, 6), torch.arange(36.0), torch.arange(36.0))
    local = [7, 9, 11, 19, 21, 23, 31, 33, 35]  # the last of each window of 2x2
    assert more.tolist() == [sorted([*local, 34, 32, 30, 29, 28, 27, 26, 25, 24])]


def test_gathering_in_a_frame_by_hand():
    """Of two tokens of a frame one is the anchor. All of the transport, 1, and the nearest one go to it."""
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    evidence = {NEEDS[0]: torch.tensor([0.0, 0.0]), NEEDS[1]: torch.tensor([0.1, 0.9])}
    out, plan = AOT(anchors=1, global_share=1, keep=None)(tokens, evidence)
    # The anchor becomes (0.5, 0.5); pooling takes the mean of both, of which one is an anchor: half.
    torch.testing.assert_close(out, torch.tensor([[0.75, 0.25]]))
    assert plan.anchor.tolist() == [0]


def test_gathering_over_time_by_hand():
    """Of frame 1 the token that is spread most evenly stays, (1, 1); (3, 0) goes to (1, 0) alone."""
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [3.0, 0.0]]])
    tokens = tokens.view(2, 1, 2, 2).repeat_interleave(2, 2)  # of each pair, resized by half, one remains
    evidence = {need: torch.rand(8) for need in NEEDS}
    out, plan = AOT(anchors=4, keep=0.5, segment=2)(tokens, evidence)
    assert plan.anchor.tolist() == [0, 0, 2, 2, 4]
    torch.testing.assert_close(out[[0, 2, 4]], torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    assert out[1, 1] == 0  # a mean of (1, 0) and (3, 0)
    assert 1.5 < out[1, 0] <= 2
    assert AOT(anchors=4, keep=0.5, segment=1)(tokens, evidence).plan.anchor.tolist() == [0, 2, 4, 6]


def test_a_frame_never_loses_all_tokens():
    """One anchor of 16 covers a quarter of its window at most."""
    evidence = {need: torch.rand(32) for need in NEEDS}
    out, plan = AOT(anchors=1, pooling="average", keep=None)(torch.randn(2, 4, 4, 3), evidence)
    assert len(out) == 2
    assert (plan.anchor // 16).tolist() == [0, 1]


def test_needs_counts_and_bad_options():
    assert AOT().needs == set(NEEDS)
    assert not AOT().query_aware
    assert AOT().planned_count((8, 27, 27)) is None
    for options, message in (
        ({"anchors": 0}, "anchors must be a whole number from 1"),
        ({"global_share": 1.5}, "global_share must be a number from 0 to 1, got 1.5"),
        ({"anchors": 8, "global_share": 0}, "anchors must be at least 9, .* got anchors=8 and global_share=0"),
        ({"pooling": "max"}, "pooling cannot be 'max'"),
        ({"keep": 0}, "keep must be a number above 0 and at most 1, got 0"),
        ({"segment": (4, 0)}, "segment must be a list of whole numbers from 1"),
        ({"shallow": 5}, "shallow must be a whole number from -1000 to -1, got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            AOT(**options)
    evidence = {need: torch.rand(36) for need in NEEDS}
    assert AOT(anchors=9, global_share=0, keep=None)._anchors((1, 6, 6), *evidence.values()).numel() == 9
    evidence = {need: torch.rand(8) for need in NEEDS}
    with pytest.raises(ValueError, match=r"segments of \(1, 2\) frames are not the 2 of the video"):
        AOT(segment=(1, 2))(torch.randn(2, 2, 2, 3), evidence)
