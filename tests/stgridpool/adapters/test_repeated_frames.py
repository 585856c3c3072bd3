"""Frames that equal an earlier one: the tower encodes them once, and everything behind it is as without reuse."""

import pytest
import torch
from transformers.video_utils import VideoMetadata

import stgridpool
from native_models.families import BUILDERS, build
from native_models.prompts import load_with, make_clips, make_frames
from stgridpool.adapters import VideoQuestions, adapter_for, compress_inputs, visual_runs
from stgridpool.adapters.repeated_frames import count_reused
from stgridpool.adapters.tower_evidence import with_evidence
from stgridpool.evidence import AttentionReceived, FrameVectors, TowerKeys

NEEDS = [AttentionReceived(), AttentionReceived(joined=True), TowerKeys(-2), FrameVectors("mean")]
DIFFERENT, OTHERS = make_frames(6, 43, 48), make_frames(8, 30, 20, seed=1)
REPEATING = [  # pairs of frames repeat, so that frames and units of two frames repeat alike: 4 and 2 of 8 frames
    [DIFFERENT[[0, 1, 0, 1, 2, 3, 2, 3]], "What?"],
    ["Look", OTHERS[[0, 1, 2, 3, 0, 1, 4, 5]], "and say why."],
]
LEFT = (4, 6)
pytestmark = pytest.mark.adapters


@pytest.fixture
def rows():
    """Function that calls another one and returns its result, and the number of rows of each input of the tower."""

    def call(model, function, *args, **options):
        tower, seen = adapter_for(model).tower(model), []

        def note(tower, args, kwargs, output):
            seen.append(len(args[0] if args else kwargs["pixel_values"]))

        handle = tower.register_forward_hook(note, with_kwargs=True)
        try:
            with torch.no_grad():
                return function(*args, **options), seen
        finally:
            handle.remove()

    return call


def same(found, expected):
    """Another batch size may round differently, relative to the largest summands."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", BUILDERS)
def test_the_tower_encodes_equal_frames_once(name, rows):
    """Features, levels and evidence of a batch of videos that repeat at different places."""
    model, inputs = load_with(name, *REPEATING)
    adapter = adapter_for(model)
    (every, all_rows), (once, left) = (
        rows(model, visual_runs, adapter, model, inputs, NEEDS, reuse_frames=reuse) for reuse in (False, True)
    )
    of_videos = [1, 1] if "video_grid_thw" not in inputs else (inputs["video_grid_thw"].prod(1) // 8).tolist()
    assert all_rows == [8 * sum(of_videos)]
    assert left == [of_videos[0] * LEFT[0] + of_videos[1] * LEFT[1]]
    for one, other in zip(every, once, strict=True):
        same(other.visual.tokens, one.visual.tokens)
        assert (other.visual.patches is None) == (one.visual.patches is None)
        if one.visual.patches is not None:
            same(other.visual.patches, one.visual.patches)
        for found, expected in zip(other.visual.levels, one.visual.levels, strict=True):
            same(found, expected)
        for need in NEEDS:
            same(other.visual.evidence[need], one.visual.evidence[need])
    assert [one.visual.reused for one in every] == [(), ()]
    units = 8 // adapter.frames_per_token(model)
    expected = [(2, 3, 6, 7), (4, 5)] if units == 8 else [(1, 3), (2,)]
    assert [one.visual.reused for one in once] == expected


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "internvl"])
def test_different_frames_change_nothing(name, rows):
    prompts = [DIFFERENT, "What?"], [DIFFERENT[::-1].copy() // 2, "Why?"]
    model, inputs = load_with(name, *prompts)
    (every, all_rows), (once, left) = (
        rows(model, compress_inputs, model, inputs, None, reuse_frames=reuse) for reuse in (False, True)
    )
    assert left == all_rows
    assert once.reused_frames == 0
    assert torch.equal(once.inputs["inputs_embeds"], every.inputs["inputs_embeds"])


def test_a_question_asked_twice_in_a_batch_encodes_its_video_once(rows):
    model, inputs = load_with("qwen3_vl", [DIFFERENT, "What?"], [DIFFERENT, "Why?"])
    prompt, (left,) = rows(model, compress_inputs, model, inputs, "vidcom2")
    assert (prompt.reused_frames, 2 * left) == (6, len(inputs["pixel_values_videos"]))


def test_frames_of_another_shape_are_different():
    """Grids of 4x6 and 6x4 patches hold as many, which may be equal one by one."""
    model, inputs = load_with("qwen2_vl", [DIFFERENT[:2], "What?"], [DIFFERENT[:2], "Why?"])
    grid, size = inputs["video_grid_thw"], int(inputs["video_grid_thw"][0].prod())
    assert grid[0, 1] != grid[0, 2]
    turned = {
        "pixel_values_videos": inputs["pixel_values_videos"][:size].repeat(2, 1),
        "video_grid_thw": torch.stack([grid[0], grid[0][[0, 2, 1]]]),
    }
    with torch.no_grad():
        found = with_evidence(adapter_for(model), model, turned, "video", ())
    assert [one.reused for one in found] == [(), ()]


def test_videos_merged_by_different_sizes_are_encoded_whole(rows):
    """Then output is not in proportion to input."""
    model, inputs = load_with("video_llama_3", *REPEATING)
    differing = {name: inputs[name] for name in ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")}
    differing["video_merge_sizes"] = torch.tensor([2, 1])
    found, (encoded,) = rows(model, with_evidence, adapter_for(model), model, differing, "video", ())
    assert encoded == len(inputs["pixel_values_videos"])
    grids = inputs["video_grid_thw"].prod(1).tolist()
    assert [one.tokens.shape[:3].numel() for one in found] == [grids[0] // 4, grids[1]]


def test_images_are_encoded_beside_equal_frames(rows):
    frames = make_frames(4, 32, 32)
    prompt = ["See", frames[0], "and", frames[0], "and", frames[[0, 0, 1, 2]], "What?"]
    model, inputs = load_with("internvl", prompt)
    found, (encoded,) = rows(model, compress_inputs, model, inputs, None, clips=make_clips(prompt))
    assert (encoded, len(inputs["pixel_values"]), found.reused_frames) == (5, 6, 1)


def test_frames_that_pad_a_batch_are_no_frames(rows):
    """SmolVLM's processor pads the shorter video with black pictures, which the model leaves out."""
    model, inputs = load_with("smolvlm", [DIFFERENT[[0, 0, 1]], "What?"], [DIFFERENT, "Why?"])
    assert inputs["pixel_values"].shape[:2] == (2, 6)
    found, (encoded,) = rows(model, compress_inputs, model, inputs, None)
    assert (encoded, found.reused_frames) == (6, 3)  # the second video begins with both frames of the first


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_a_block_reports_reused_frames_and_can_encode_all(name, rows):
    model, inputs = load_with(name, REPEATING[0])
    answers, counts = [], []
    for options in ({}, {"reuse_frames": False}):
        with stgridpool.compress(model, "visionzip", tokens_per_frame=4, **options) as block:
            output, seen = rows(model, model.generate, **inputs, max_new_tokens=2, do_sample=False)
        answers.append(output)
        counts.append((block.last.reused_frames, seen[0]))
    assert torch.equal(*answers)
    assert counts[0] == (4, counts[1][1] // 2)
    assert counts[1][0] == 0


def test_questions_about_one_video_report_reused_frames():
    model, processor = build("qwen2_vl")
    metadata = VideoMetadata(total_num_frames=5, fps=1.0, frames_indices=list(range(5)))
    frames = DIFFERENT[[0, 0, 0, 0, 0]]  # a sixth one fills up the last unit
    video, other = (VideoQuestions(model, processor, frames, metadata, reuse_frames=reuse) for reuse in (True, False))
    assert (video.reused_frames, other.reused_frames) == (3, 0)
    assert video.generate(["What?"], max_new_tokens=2) == other.generate(["What?"], max_new_tokens=2)


def test_frames_that_fill_up_a_unit_do_not_count():
    assert count_reused((1, 2), frames_per_unit=2, num_frames=5) == 3
    assert count_reused((1, 2), frames_per_unit=2, num_frames=6) == 4
    assert count_reused((3,), frames_per_unit=1, num_frames=4) == 1


def test_nothing_stays_on_a_tower_that_fails(monkeypatch):
    model, inputs = load_with("qwen2_vl", *REPEATING)
    tower = model.model.visual

    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(tower.blocks[0], "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        compress_inputs(model, inputs, None)
    assert not tower._forward_hooks
    assert not tower._forward_pre_hooks
