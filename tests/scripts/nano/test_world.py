"""Clips keep the promises that the questions rely on."""

import pytest
import torch


@pytest.fixture(scope="module")
def world(nano):
    return nano("world")


def plan(world, num_clips, seconds, seed=0):
    return world.plan_clips(num_clips, seconds, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seconds", [4, 5, 7, 16, 32])
def test_events_have_their_place_in_time(world, seconds):
    clips = plan(world, 300, seconds)
    assert not (clips.lamp_on[:, 1:] & clips.lamp_on[:, :-1]).any()  # flashes can be told apart
    assert clips.count.unique().tolist() == list(range(1, min(4, (seconds + 1) // 2) + 1))
    assert (clips.card_starts[:, 0] == 0).all()
    assert (clips.card_starts.diff(dim=1) >= 1).all()
    assert (clips.card_starts[:, -1] < seconds).all()
    assert clips.needle[:, 1].unique().tolist() == list(range(seconds))


def test_things_never_cover_each_other(world, nano):
    clips = plan(world, 500, 8)
    drawing = nano("drawing")
    centres = torch.stack([clips.card[:, 1:], clips.lamp[:, 1:], clips.needle_place], dim=1)
    radii = torch.tensor([drawing.CARD_RADIUS, drawing.LAMP_RADIUS, drawing.DIGIT_RADIUS])
    for path in (clips.path[:, :1], clips.path[:, 1:]):
        apart = (centres - path).abs().amax(dim=2)
        assert (apart > radii + drawing.MOVER_RADIUS - 0.4).all()  # shapes do not fill their squares
    between = (centres[:, :, None] - centres[:, None]).abs().amax(dim=3) + 9 * torch.eye(3)
    assert (between > 1.7).all()
    assert centres.amax() + radii.max() < world.UNITS - 0.7  # the last unit stays empty


def test_the_mover_crosses_in_its_direction(world):
    clips = plan(world, 200, 8)
    along = torch.tensor(list(world.DIRECTIONS.values()))[clips.mover[:, 2]]
    way = clips.path[:, 1] - clips.path[:, 0]
    assert ((way * along).sum(dim=1) >= 2).all()
    assert (way * (1 - along.abs()) == 0).all()


def test_every_property_is_about_uniform(world):
    clips = plan(world, 4000, 8)
    for values, size in (
        (clips.mover[:, 0], 6),
        (clips.mover[:, 2], 4),
        (clips.lamp[:, 0].long(), 4),
        (clips.count, 4),
    ):
        shares = values.bincount()[-size:] / len(clips)
        assert (shares - 1 / size).abs().max() < 0.04  # six standard deviations of a share of 4000


def test_too_short_clips_are_refused(world):
    with pytest.raises(ValueError, match="seconds must be at least 4, got 3"):
        plan(world, 1, 3)


def test_pictures_of_two_sizes_show_the_same(world, nano):
    clips = plan(world, 4, 6)
    draw = nano("drawing").draw_clips
    small, large = draw(clips, 98), draw(clips, 196)
    halved = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 2).view_as(small)
    assert small.shape == (4, 6, 3, 98, 98)
    assert (small - halved).abs().mean() < 1.0  # of 255
    lit = clips.lamp_on.nonzero()[0].tolist()
    row, column = (clips.lamp[lit[0], 1:] * 98 / 7).long().tolist()
    assert small[lit[0], lit[1], :, row, column].min() > 240


def test_degraded_pictures_are_near_and_differ_by_clip(world, nano):
    pictures = nano("drawing").draw_clips(plan(world, 3, 4), 98)
    degraded = nano("degrading").degrade(pictures, torch.Generator().manual_seed(0))
    error = (degraded - pictures).abs().mean(dim=(1, 2, 3, 4))
    assert (error > 0.3).all()
    assert (error < 12).all()
    assert len(error.unique()) == 3
