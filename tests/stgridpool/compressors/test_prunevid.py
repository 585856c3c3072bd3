"""PruneVid: golden numbers of the front half, scenes and both halves by hand, exact budgets."""

import pytest
import torch
from safetensors.torch import load_file

from golden_methods import check_features, golden_method, runs_of_case
from stgridpool import PruneVid, Step
from stgridpool.compressors.prunevid.inner import PruneVidInner
from stgridpool.compressors.prunevid.scenes import scene_lengths, smoothed
from stgridpool.evidence import QueryAttention
from stgridpool.video_tokens import VideoTokens

CASES = ["s00_blocky", "s01_smooth", "s02_random", "s03_scenes", "s05_smooth", "s08_scenes", "s09_blocky", "s10_scenes"]


@pytest.fixture(scope="module")
def original(golden):
    return golden_method(golden, "prunevid")


def test_every_golden_case_is_listed(original):
    assert sorted({variant["case"] for variant in original[0]}) == CASES
    assert len(original[0]) == 37


@pytest.mark.parametrize("case", CASES)
def test_equals_the_original(golden, original, case):
    for name, variant, tokens, _ in runs_of_case(golden, original[0], case):
        method = PruneVid(
            variant["cluster_ratio"],
            inner_retention=1,
            preset="released",
            scenes=variant["temporal_segment_ratio"],
            threshold=variant["tau"],
        )
        out, plan = method(tokens)
        anchor, order = original[1][f"{name}.anchor"].long().sort()
        assert plan.anchor.tolist() == anchor.tolist(), name
        check_features(out, original[1], name, variant["has_features"], order)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("0011", "0011"),
        ("00100", "00000"),  # a single frame between runs of the same label
        ("001222", "002222"),  # the longer neighbour
        ("00122", "00022"),  # of equals the earlier
        ("001022", "000022"),  # two stretches of single frames are one
        ("0010222333313", "0022222333333"),
        ("0001100", "0001111"),  # the shorter run of a label is none
        ("0012211", "0002211"),  # both runs of 1 are of different length; 2 and 0 are equals
        ("001223344", "000223344"),
        ("0013344445", "0003344444"),
        ("100", "000"),
        ("0", "0"),
        ("0123", "0000"),
        ("2323", "0000"),
    ],
)
def test_labels_are_smoothed(labels, expected):
    assert smoothed([int(label) for label in labels]) == [int(label) for label in expected]


def test_a_run_grows_by_what_it_has_taken():
    """The three of 1 take the 5 before them; then they are as many as the 2 after the 6, and come before those."""
    assert smoothed([0, 0, 5, 1, 1, 1, 6, 2, 2, 2, 2]) == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]


def test_scenes_are_clusters_of_frames():
    vectors = torch.cat([torch.randn(1, 6).expand(4, -1), torch.randn(1, 6).expand(3, -1)]) + 0.01 * torch.randn(7, 6)
    assert scene_lengths(vectors, 2, 3).tolist() == [4, 3]
    assert scene_lengths(vectors, 1, 7).tolist() == [7]
    assert scene_lengths(vectors[:1], 1, 7).tolist() == [1]


# Two frames of four places. Places 0 and 1 stay the same; 2 turns by a right angle, 3 by 60 degrees.
CLIP = torch.tensor(
    [[[1.0, 0, 0], [0, 2, 0], [1, 0, 0], [0, 0, 2]], [[3, 0, 0], [0, 4, 0], [0, 1, 0], [0, 0.75**0.5, 0.5]]]
).view(2, 2, 2, 3)


@pytest.mark.parametrize(
    ("options", "anchor", "values"),
    [
        # One scene; static means (2, 0, 0) and (0, 3, 0). Six tokens are six sets of one: nothing is merged further.
        ({"tokens": 6}, [0, 1, 2, 3, 6, 7], [[2, 0, 0], [0, 3, 0], [1, 0, 0], [0, 0, 2], [0, 1, 0], [0, 0.866, 0.5]]),
        # Three tokens for sets of two: each becomes its mean, on the place of its first token, the denser of equals.
        ({"tokens": 3}, [0, 2, 6], [[1, 1.5, 0], [0.5, 0, 1], [0, 0.933, 0.25]]),
        # Seven tokens: only one place may be static; of the equals 0 and 1 the first.
        ({"tokens": 7}, [0, 1, 2, 3, 5, 6, 7], None),
        ({"tokens": 8}, list(range(8)), CLIP.view(8, 3).tolist()),
    ],
)
def test_the_front_half_by_hand(options, anchor, values):
    out, plan = PruneVid(inner_retention=1, **options)(CLIP)
    assert plan.anchor.tolist() == anchor
    if values is None:
        assert plan.sizes().tolist() == [2, 1, 1, 1, 1, 1, 1]
    else:
        torch.testing.assert_close(out, torch.tensor(values), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("threshold", "sources"), [(0.3, [0, 1, 2]), (0.4, [0])])
def test_tokens_of_zeros_are_like_nothing(threshold, sources):
    """Of three pairs of frames one is alike and two have a frame of zeros: a mean cosine of 1/3."""
    maps = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1, 1).expand(3, 1, 1, 2)
    plan = PruneVid(inner_retention=1, tokens=1, scenes=0, threshold=threshold)(maps).plan
    assert plan.rows.sources.tolist() == sources


def test_the_inner_half_by_hand():
    """Half of the tokens of each frame, by the largest attention."""
    tokens = VideoTokens(torch.randn(8, 3), (2, 2, 2))
    need = QueryAttention(10, "question", "max")
    attention = {need: torch.tensor([0.1, 0.9, 0.5, 0.2, 0.3, 0.1, 0.1, 0.2])}
    assert PruneVidInner(0.5, layer=11).plan(tokens, attention).kept().tolist() == [1, 2, 4, 7]


@pytest.mark.parametrize("retention", [0.05, 0.25, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("case", ["s00_blocky", "s03_scenes", "s07_smooth_T1", "s06_random"])
def test_budgets_are_met(golden, case, retention):
    inputs = load_file(golden / "methods" / "inputs" / f"{case}.safetensors")
    tokens = inputs["x"].float().view(len(inputs["x"]), 7, -1, 32)
    method = PruneVid(retention, inner_retention=1)
    plan = method(tokens).plan
    assert len(plan) == method.planned_count(tokens.shape[:3]) == int(retention * tokens[..., 0].numel() + 1e-9)
    assert plan.anchor.tolist() == sorted(set(plan.anchor.tolist()))


def test_where_it_acts_and_bad_options():
    front, inside = PruneVid().steps()
    assert front == Step(PruneVid(inner_retention=1.0), "tokens")
    assert inside == Step(PruneVidInner(0.4, layer=11), 11, "survive")
    assert PruneVid().needs == {QueryAttention(10, "question", "max")}
    assert PruneVid().query_aware
    assert not PruneVid(inner_retention=1).needs
    for options, message in (
        ({"preset": "paper"}, "preset cannot be 'paper'"),
        ({"scenes": 2}, "scenes must be a number from 0 to 1"),
        ({"threshold": 80}, "threshold must be a number from -1 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            PruneVid(**options)


def test_the_released_form_says_that_it_would_leave_nothing():
    """One of 32 tokens: of no set of 16 is a whole token left."""
    method = PruneVid(preset="released", tokens=1, inner_retention=1)
    with pytest.raises(ValueError, match=r"a budget of 1 of 32 leaves none: ask for more or choose preset='corrected'"):
        method(torch.randn(2, 4, 4, 8))
