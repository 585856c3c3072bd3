"""EarlyTom's merging of frames, by hand; test_earlytom.py and test_tower_steps.py compare its golden numbers."""

import pytest
import torch

from stgridpool import EarlyTom, EarlyTomFrames, Step, VideoTokens, build_compressor
from stgridpool.compressor import EncoderLayer


def test_groups_by_hand():
    """Cosine 1 with the first two, 0.5 with the third: a running mean of 0.5 * 0.5 + 0.5 * 1 is below 0.8."""
    cosines = torch.eye(5)
    cosines[0, 1], cosines[0, 2], cosines[2, 3:] = 1, 0.5, 1
    frames = EarlyTomFrames(threshold=0.8, longest=3, momentum=0.5)
    assert frames.groups(cosines) == [(0, 2), (2, 4), (4, 5)]  # three frames would be the longest
    assert frames.groups(torch.ones(1, 1)) == [(0, 1)]


def frames_at(*angles):
    """Frames of one token, at these angles in degrees."""
    radians = torch.tensor(angles).deg2rad()
    return VideoTokens.of(torch.stack([radians.cos(), radians.sin()], -1).view(-1, 1, 1, 2))


@pytest.mark.parametrize(("preset", "rows"), [("corrected", [[0], [1, 2], [3], [4]]), ("released", [[0], [1, 2], [4]])])
def test_pairs_by_hand(preset, rows):
    """Two like frames in the middle merge; the last of the middle follows nothing, and only the code loses it."""
    method = EarlyTomFrames(preset, threshold=-1, longest=1000)
    plan = method.plan(frames_at(0, 20, 22, 50, 60), {})
    of_row = plan.rows.sources.split(plan.rows.offsets.diff().tolist())
    assert [sources.tolist() for sources in of_row] == rows
    one, other = torch.tensor([2.0, 28.0]).deg2rad().cos()
    torch.testing.assert_close(plan.rows.weights[1:3], torch.stack([one, other]) / (one + other))


def test_the_last_pair_is_even():
    plan = EarlyTomFrames(threshold=-1, longest=1000).plan(frames_at(0, 20, 22, 60), {})
    assert plan.rows.sources.tolist() == [0, 1, 2, 3]
    assert plan.rows.weights.tolist() == [1, 0.5, 0.5, 1]
    plan = EarlyTomFrames(threshold=-1, longest=1000, mixing="mean").plan(frames_at(0, 20, 22, 40, 60), {})
    assert plan.rows.weights.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 1])


@pytest.mark.parametrize(("preset", "rows"), [("corrected", [[0], [1], [3], [4]]), ("released", [[0], [1, 2], [4]])])
def test_a_pair_before_an_opposite_frame(preset, rows):
    """The cosine of the next two is negative, which counts as 0; the code lets it, so that the first weighs over 1."""
    plan = EarlyTomFrames(preset, threshold=-1, longest=1000).plan(frames_at(0, 10, 15, 180, 90), {})
    assert [part.tolist() for part in plan.rows.sources.split(plan.rows.offsets.diff().tolist())] == rows
    alike, following = torch.tensor([5.0, 165.0]).deg2rad().cos()
    first = 1 if preset == "corrected" else float(alike / (alike + following))
    assert float(plan.rows.weights[1]) == pytest.approx(first, rel=1e-3)


def test_where_it_acts():
    chain = build_compressor("earlytom_frames+st_gridpool+fastv", earlytom_frames={"layers": [-5, -2]})
    assert [step.place for step in chain.steps()] == [EncoderLayer(-5), EncoderLayer(-2), "patches", 2]
    method = EarlyTomFrames(layers=[-2])
    assert method.steps() == (Step(method, EncoderLayer(-2)),)
    assert not method.needs
    with pytest.raises(ValueError, match=r"EarlyTomFrames.* acts at layer -2 of the vision tower, before Average"):
        build_compressor("average+earlytom_frames", earlytom_frames={"layers": [-2]})


@pytest.mark.parametrize("method", [EarlyTom, EarlyTomFrames])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "layers must be ascending, at least one"),
        ({"layers": (-2, -5)}, "layers must be ascending"),
        ({"layers": (3,)}, "layers must be a list of whole numbers from -1000 to -1"),
        ({"mixing": "max"}, "mixing cannot be 'max'"),
        ({"threshold": 2}, "threshold must be a number from -1 to 1"),
        ({"longest": 1}, "longest must be a"),
    ],
)
def test_bad_options(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(**options)
