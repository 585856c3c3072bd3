"""Positions of M-RoPE, by hand and against transformers where it counts as models were trained."""

from itertools import groupby

import pytest
import torch

from native_models.families import build
from native_models.prompts import make_frames, make_inputs
from stgridpool.adapters import adapter_for, compress_inputs
from stgridpool.adapters.mrope import Grid, mrope_positions

TEXT, IMAGE, VIDEO = 0, 1, 2
pytestmark = pytest.mark.adapters


def positions(kinds, grids, mask=None):
    kinds = torch.tensor(kinds)
    mask = torch.ones_like(kinds, dtype=torch.bool) if mask is None else torch.tensor(mask).bool()
    return mrope_positions(kinds, mask, {kind: iter(of_kind) for kind, of_kind in grids.items()})


def test_by_hand():
    """Two text tokens, 2 frames of 1x2 four positions apart, two text tokens: the text goes on after time 6."""
    kinds = [[TEXT] * 2 + [VIDEO] * 4 + [TEXT] * 2]
    time, row, column = positions(kinds, {VIDEO: [Grid((2, 1, 2), 4.0)]})[:, 0].tolist()
    assert time == [0, 1, 2, 2, 6, 6, 7, 8]
    assert row == [0, 1, 2, 2, 2, 2, 7, 8]
    assert column == [0, 1, 2, 3, 2, 3, 7, 8]


def test_time_steps_are_multiplied_before_they_are_rounded_down():
    time = positions([[VIDEO] * 4], {VIDEO: [Grid((4, 1, 1), 0.6)]})[0, 0]
    assert time.tolist() == [0, 0, 1, 1]


def test_padding_and_visuals_side_by_side():
    kinds = [[0, 0, IMAGE, IMAGE, VIDEO, TEXT], [VIDEO, TEXT, VIDEO, VIDEO, VIDEO, TEXT]]
    mask = [[0, 0, 1, 1, 1, 1], [1] * 6]
    grids = {IMAGE: [Grid((1, 1, 2))], VIDEO: [Grid((1, 1, 1)), Grid((1, 1, 1)), Grid((1, 1, 2)), Grid((1, 1, 1))]}
    found = positions(kinds, grids, mask)
    assert found[2].tolist() == [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    assert found[0].tolist() == [[0, 0, 0, 0, 2, 3], [0, 1, 2, 2, 4, 5]]


@pytest.mark.parametrize("grids", [[], [Grid((1, 2, 2))]])
def test_runs_that_do_not_fit_are_refused(grids):
    with pytest.raises(ValueError, match="a run of 3 placeholders does not fit the next visual"):
        positions([[VIDEO] * 3], {VIDEO: grids})


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_short_videos_and_images_have_the_positions_of_transformers(name):
    """Text begins after the rows or columns of a video that lasts no longer than these."""
    model, processor = build(name)
    frames = make_frames(4, 43, 30)
    inputs = make_inputs(processor, ["See", frames[0], "and", frames, "What?"], ["Or", make_frames(4, 40, 24)])
    ours, theirs = (adapter_for(model).positions(model, inputs, kind) for kind in ("reference", "hf"))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_5", "glm4v"])
def test_long_videos_with_time_stamps_have_the_positions_of_transformers(name):
    """Each frame is a segment of its own, so that no video lasts longer than its rows or columns."""
    model, processor = build(name)
    inputs = make_inputs(
        processor, [make_frames(40), "What happens?"], ["Look", make_frames(5, 33, 41), "and say why."]
    )
    ours, theirs = (adapter_for(model).positions(model, inputs, kind) for kind in ("reference", "hf"))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("name", "step"), [("qwen2_vl", 1), ("qwen2_5_vl", 2)])
def test_text_behind_a_long_video_begins_behind_its_time(name, step):
    """Two frames last a second, so the 20 pairs of Qwen2.5-VL are 2 positions apart; the video begins at `start`."""
    model, processor = build(name)
    inputs = make_inputs(processor, [make_frames(40), "What happens?"])
    time, row, _ = adapter_for(model).positions(model, inputs, "reference")[:, 0]
    is_video = adapter_for(model).slots(model, inputs)[0]
    start, length = int(is_video.int().argmax()), int(is_video.sum())
    per_frame = length // 20
    assert time[is_video].tolist() == [start + step * (index // per_frame) for index in range(length)]
    behind = start + step * 19 + 1
    assert row[start + length :].tolist() == list(range(behind, behind + len(row) - start - length))


def test_frames_of_qwen3_vl_are_segments_of_their_own():
    model, processor = build("qwen3_vl")
    inputs = make_inputs(processor, [make_frames(6), "What happens?"])
    time, _, _ = adapter_for(model).positions(model, inputs, "reference")[:, 0].tolist()
    is_video = adapter_for(model).slots(model, inputs)[0].tolist()
    times = [
        {time[index] for index, _ in run} for kind, run in groupby(enumerate(is_video), lambda one: one[1]) if kind
    ]
    assert len(times) == 3
    assert all(len(one) == 1 for one in times)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("reference", ("survive", "reference")),
        ("hf", ("survive", "hf")),
        ("survive", ("survive", "reference")),
        ("reassign", ("reassign", "reference")),
    ],
)
def test_positions_are_recorded_and_tokens_keep_the_place_of_their_anchor(positions, expected):
    model, processor = build("qwen2_5_vl")
    inputs = make_inputs(processor, [make_frames(40), "What happens?"])
    prompt = compress_inputs(model, inputs, "average", positions=positions)
    assert prompt.positions == expected
    (visual,) = prompt.visuals[0]
    text, *axes = prompt.inputs["position_ids"][:, 0]
    assert text.tolist() == list(range(len(text)))
    if expected[0] == "reassign":
        assert all(axis.tolist() == text.tolist() for axis in axes)
        return
    dense = adapter_for(model).positions(model, inputs, expected[1])[:, 0]
    anchors = visual.run.slots[visual.plan.anchor]
    assert torch.equal(torch.stack(axes)[:, prompt.visual_mask[0]], dense[:, anchors])
    assert prompt.next_position.tolist() == [int(dense[0, -1]) + 1]


def test_unknown_positions_are_refused():
    model, processor = build("qwen2_5_vl")
    inputs = make_inputs(processor, [make_frames(4), "What happens?"])
    with pytest.raises(ValueError, match="positions cannot be 'mine'"):
        compress_inputs(model, inputs, None, positions="mine")
