"""A method on each segment, by hand and against calling it on each segment alone."""

from dataclasses import dataclass

import pytest
import torch

from stgridpool import DivPrune, NormTopK, PerSegment, Scorer, Step, VideoTokens, build_compressor, compress_tokens
from stgridpool.compressors import COMPRESSORS
from stgridpool.contract.cases import invented


def two_scenes():
    """Frames of 1x4 tokens: three that point along the first axis and one along the second; norms rise."""
    maps = torch.zeros(4, 1, 4, 2)
    maps[:3, :, :, 0] = torch.arange(1.0, 13).view(3, 1, 4)
    maps[3, :, :, 1] = torch.arange(13.0, 17).view(1, 4)
    return maps


def test_each_segment_gets_its_share():
    """Half of 16 tokens: 6 of the first scene, 2 of the second, each time those of the largest norm."""
    method = PerSegment(retention=0.5, method="norm_topk", options={"scope": "video"}, segments=1)
    out, plan = method(two_scenes())
    assert plan.anchor.tolist() == [6, 7, 8, 9, 10, 11, 14, 15]
    assert torch.equal(out, two_scenes().view(16, 2)[plan.anchor])
    assert method.planned_count((4, 1, 4)) == 8
    whole = build_compressor("norm_topk", retention=0.5, scope="video")(two_scenes()).plan
    assert whole.anchor.tolist() == list(range(8, 16))


def test_no_count_is_promised_where_the_other_method_may_miss_its_own():
    """Both of 2 tokens fall to the first scene, of whose 3 frames `released` leaves one token each at least."""
    options = {"method": "vidcom2", "options": {"preset": "released"}, "tokens": 2, "segments": 1}
    method = PerSegment(**options)
    assert method.planned_count((4, 1, 4)) is None
    assert len(method(two_scenes()).plan) == 3
    assert PerSegment(**options | {"options": {}}).planned_count((4, 1, 4)) == 2
    assert PerSegment(tokens=2, method="dycoke_ttm").planned_count((4, 1, 4)) == 2  # it keeps what is asked, or refuses


def test_segments_can_be_asked_for():
    """Cuts in the scene of equal frames fall after its first ones; a segment without a token is lost."""
    maps = two_scenes()
    plan = PerSegment(tokens=4, method="norm_topk", options={"scope": "video"}, segments=4)(maps).plan
    assert plan.anchor.tolist() == [3, 7, 11, 15]
    plan = PerSegment(tokens=1, method="norm_topk", options={"scope": "video"}, segments=4)(maps).plan
    assert plan.anchor.tolist() == [3]


@pytest.mark.parametrize(("frame_budget", "shares"), [("uniform", (6, 2)), ("uniqueness", (5, 3))])
def test_unlike_segments_get_more_where_that_is_asked_for(frame_budget, shares):
    """The last frame counts 7/4 of a frame and the others 3/4: 9 and 7 of 16 parts of 8 tokens, 4.5 and 3.5."""
    plan = PerSegment(tokens=8, segments=1, frame_budget=frame_budget)(two_scenes()).plan
    assert torch.bincount(plan.anchor // 12).tolist() == list(shares)


@pytest.mark.parametrize("name", ["visionzip", "tome", "fastvid", "downsample", "evs"])
def test_it_equals_the_method_on_each_segment(name):
    places = 5 * torch.eye(8)  # each scene around a channel of its own, so that their frames are unlike
    scenes = [
        places[number] + torch.randn(1, 4, 4, 8) + 0.3 * torch.randn(frames, 4, 4, 8)
        for number, frames in enumerate((3, 2, 4))
    ]
    maps = torch.cat(scenes)
    options = {"importance": "received", "frames": "mean"} if name == "fastvid" else {}
    method = PerSegment(tokens_per_frame=4, method=name, options=options, segments=1, threshold=0.7)
    evidence = invented(method, (9, 4, 4))
    found, plan = method(maps, evidence)
    expected, start = [], 0
    for scene in scenes:
        rows, stop = slice(start * 16, (start + len(scene)) * 16), start + len(scene)
        about = {need: value[rows] if need.per_token else value[start:stop] for need, value in evidence.items()}
        expected.append(build_compressor(name, tokens=4 * len(scene), **options)(scene, about).tokens)
        start = stop
    torch.testing.assert_close(found, torch.cat(expected))
    assert len(plan) == method.planned_count((9, 4, 4)) == 36


def test_pruned_videos_keep_their_places():
    cell = torch.cat([torch.arange(5), torch.tensor([25]), torch.arange(36, 45)])  # none of the second frame
    tokens = VideoTokens(torch.randn(15, 6), (4, 3, 4), cell)
    left, plan = compress_tokens(PerSegment(tokens=6, segments=2), tokens, {})
    assert torch.equal(left.cells(), cell[plan.anchor])
    assert len(left) == 6


@dataclass(frozen=True)
class Late(Scorer):
    """Keep what is late, far down in its frame, or large in the first level."""

    def score(self, tokens, evidence):
        assert tokens.times.shape == tokens.shape[:1]
        return tokens.times[tokens.frames()] + tokens.cells() + 100 * tokens.levels[0][:, 0]


def test_a_method_sees_its_segment_of_pruned_videos(monkeypatch):
    """Two frames of three tokens and two of two, the scenes apart: cells begin at the segment, times are those read."""
    monkeypatch.setitem(COMPRESSORS, "late", Late)
    features = torch.eye(2)[[0, 0, 0, 0, 0, 0, 1, 1, 1, 1]]
    cell = torch.tensor([0, 1, 2, 4, 5, 6, 8, 11, 13, 14])
    level = torch.zeros(10, 1).index_fill(0, torch.tensor([0, 6]), 1)
    tokens = VideoTokens(features, (4, 2, 2), cell, (level,), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    method = PerSegment(tokens=5, method="late", options={"scope": "video"}, segments=1)
    left, plan = compress_tokens(method, tokens, {})
    assert plan.kept().tolist() == [0, 4, 5, 6, 9]  # three of six, two of four
    assert left.cells().tolist() == [0, 5, 6, 8, 14]


@pytest.mark.parametrize(("name", "needs_maps"), [("fastvid", True), ("divprune", False)])
def test_it_needs_a_whole_lattice_where_its_method_does(name, needs_maps):
    chain = build_compressor("random+per_segment", random={"tokens": 8}, per_segment={"method": name, "tokens": 4})
    if needs_maps:
        with pytest.raises(ValueError, match=r"fastvid.* needs tokens that fill a lattice"):
            chain.planned_count((4, 2, 2))  # before anything is encoded
    else:
        assert chain.planned_count((4, 2, 2)) == 4


def test_it_stands_where_its_method_stands():
    inside = build_compressor("per_segment", method="fastv", retention=0.3)
    (step,), (own,) = inside.steps(), build_compressor("fastv").steps()
    assert step == Step(inside, own.place, own.positions, own.decode_gap, own.merges_evenly)
    assert inside.needs == build_compressor("fastv").needs
    assert inside.for_depth(28).for_depth(28) == inside.for_depth(28)
    assert PerSegment().other == DivPrune(tokens=1)
    assert PerSegment(method="norm_topk").other == NormTopK(tokens=1)


def test_what_has_no_budget_is_refused():
    with pytest.raises(ValueError, match=r"^PerSegment decides tokens of average: average has no option 'tokens'"):
        PerSegment(method="average")
    with pytest.raises(ValueError, match=r"a budget is given in one way, got \{'retention': 0.5, 'tokens': 1\}"):
        PerSegment(options={"retention": 0.5})
    with pytest.raises(ValueError, match=r"^PerSegment decides tokens of llava_scissor: preset='released' takes"):
        PerSegment(method="llava_scissor", options={"preset": "released"})
    with pytest.raises(ValueError, match="method must act once, and flashvid acts 2 times"):
        PerSegment(method="flashvid")
    with pytest.raises(ValueError, match="segments must be a whole number from 1 to 1000, got 0"):
        PerSegment(segments=0)
